"""Virtual environments of their own for packages that clash with ours, and programs run in them.

Each lies in a folder of a fixed name below ``.venvs`` of the repository, below the folder that the environment
variable ``YOLOV5_VENVS`` names, or below the one of ``export.py --venvs``. Where the running interpreter has the
packages itself, it is used. Nothing is ever installed: what is missing is named with the commands that make it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from utils.config.paths import ROOT
from utils.core.errors import InputError, describe_exit_code

VARIABLE = "YOLOV5_VENVS"
SECONDS = 3600  # a conversion that takes longer hangs
_ERROR = re.compile(r"^(?:Fatal Python error|[\w.]*(?:Error|Exception|Exit|Interrupt)): *(\S.*)")
_PROBE = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
_FOUND: set[tuple[Path, tuple[str, ...]]] = set()  # interpreters that have these modules


@dataclass(frozen=True)
class Stack:
    """What has to be importable together.

    Attributes:
        folder: of the virtual environment.
        modules: to be imported. packages: what pip calls them.
        python: the interpreter that makes the environment, where not any does.
    """

    folder: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    python: str = "python3"

    def python_in(self, venvs: str = "") -> Path | None:
        """The interpreter that has all the packages, None if there is none.

        Args:
            venvs: folder of the environments; empty: the usual one.
        """
        if all(importlib.util.find_spec(module) for module in self.modules):
            return Path(sys.executable)
        folder = venvs_folder(venvs) / self.folder
        found = next((p for p in (folder / "bin/python", folder / "Scripts/python.exe") if p.exists()), None)
        return found if found and _has_all(found, self.modules) else None

    def missing(self, venvs: str = "") -> str | None:
        """The line about what is not there, with the commands that make it; None if all is."""
        return None if self.python_in(venvs) else self._remedy(venvs)

    def _remedy(self, venvs: str) -> str:
        folder, packages = venvs_folder(venvs) / self.folder, " ".join(map(shlex.quote, self.packages))
        place = shlex.quote(str(folder))
        pip = shlex.quote(str(folder / ("Scripts/pip" if os.name == "nt" else "bin/pip")))
        make = "" if folder.is_dir() else f"{self.python} -m venv {place} && "
        return f"needs {', '.join(self.packages)}, in an environment of its own: {make}{pip} install {packages}"

    def require(self, why: str, venvs: str = "") -> Path:
        """The interpreter that has all the packages.

        Raises:
            InputError: there is none.
        """
        python = self.python_in(venvs)
        if python is None:
            raise InputError(f"{why}: {self._remedy(venvs)}")
        return python


# What runs .tflite files; what makes them; what makes and runs TensorFlow's own.
LITERT = Stack("litert", ("ai_edge_litert",), ("ai-edge-litert",))
LITERT_TORCH = Stack("litert", ("litert_torch", "ai_edge_litert"), ("litert-torch",))
TENSORFLOW = Stack("tf", ("tensorflow",), ("tensorflow-cpu",), "python3.12")
ONNX2TF = Stack("tf", ("onnx2tf", "tensorflow", "tf_keras"), ("onnx2tf[tensorflow]",), "python3.12")


def _has_all(python: Path, modules: tuple[str, ...]) -> bool:
    """Whether an interpreter finds all of these. It is started for this, so a yes is kept; packages may still come."""
    if (python, modules) not in _FOUND:
        done = subprocess.run(command(python, "-c", _PROBE, *modules), capture_output=True, check=False)
        if done.returncode:
            return False
        _FOUND.add((python, modules))
    return True


def venvs_folder(given: str = "") -> Path:
    """The folder of the environments: as given, else of the environment variable, else of the repository."""
    return Path(given or os.environ.get(VARIABLE) or ROOT / ".venvs").expanduser().absolute()


def command(python: Path, *words: str) -> list[str]:
    """A command line of an interpreter that sees its own packages and nothing else.

    Neither the folder of the script, where modules have the names of packages, nor ``PYTHONPATH`` count.
    """
    return [str(python), "-I", "-X", "utf8", *words]


def quiet_environment(python: Path) -> dict[str, str]:
    """The environment of such a process: without pages of start messages, on the CPU, with the programs beside it."""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **quiet, "PATH": path}


def run_program(
    python: Path, program: Path, words: Sequence[str], seconds: float = SECONDS, what: str = "the converter"
) -> None:
    """Run one of our programs in another interpreter, to its end.

    It is ended with this process, also when this is killed: its standard input is closed then, which it watches.
    ``what`` is what messages call it.

    Raises:
        InputError: it failed, crashed, or took longer than ``seconds``.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command(python, str(program), *words), stdin=subprocess.PIPE, stdout=said, stderr=said,
            env=quiet_environment(python), start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{what} took longer than {seconds:g} s and was ended") from error
        finally:
            end(process)
        if process.returncode:
            raise InputError(f"{what} {describe_exit_code(process.returncode)}: {last_word(said)}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process if it still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not yet sent cannot be sent any more
                continue


def last_word(said: IO[bytes]) -> str:
    """The line that tells most of what a process wrote: that of its exception, else the last one."""
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [found for line in lines if (found := _ERROR.match(line))]
    return errors[-1][1] if errors else lines[-1] if lines else "it said nothing"
