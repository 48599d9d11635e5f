"""``--help`` and wrong options of every command are answered before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [["train.py"], ["val.py"], ["detect.py"], ["export.py"], ["tools/benchmark.py"]]
TOOLS = [
    ["-m", f"tools.{name}"]
    for name in ("app", "benchmark", "check", "compare", "convert", "demo", "options_table", "preview", "profile",
                 "routing", "split", "study")
]  # fmt: skip


def answer(command: Sequence[str], option: str) -> tuple[int, str, str, set[str]]:
    """Exit code, stdout, stderr and the imported packages of a command with one option."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command, option], cwd=ROOT, capture_output=True, text=True, check=False
    )
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    said = "\n".join(line for line in done.stderr.splitlines() if line not in imports)
    return done.returncode, done.stdout, said, {line.split("|")[-1].strip().split(".")[0] for line in imports}


@pytest.mark.parametrize("command", [*SCRIPTS, *TOOLS], ids=lambda command: command[-1])
def test_help_and_a_wrong_option_are_answered_before_torch_is_imported(command: list[str]) -> None:
    code, shown, said, packages = answer(command, "--help")
    assert code == 0, said
    assert shown.startswith("usage:")
    assert "utils" in packages
    assert not {"torch", "cv2", "matplotlib"} & packages
    code, _, said, packages = answer(command, "--no-such-option")
    assert code == 2
    assert "error: unknown option '--no-such-option'" in said
    assert len(said.splitlines()) == 1
    assert not {"torch", "cv2", "matplotlib"} & packages


def test_every_command_is_tested() -> None:
    modules = {path.stem for path in (ROOT / "tools").glob("*.py")} | {
        path.parent.name for path in (ROOT / "tools").glob("*/__main__.py")
    }
    assert modules - {"__init__", "options"} == {command[-1].removeprefix("tools.") for command in TOOLS}
