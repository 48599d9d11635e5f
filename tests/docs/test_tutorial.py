"""tutorial.ipynb is executed from the first to the last cell, and is stored without outputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_tutorial_is_stored_without_outputs() -> None:
    cells = json.loads((ROOT / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
    assert {"import train", "import val", "import export"} <= {"".join(c["source"]).split("\n")[0] for c in cells}


def test_every_cell_of_the_tutorial_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    pytest.importorskip("ipykernel")
    skipped = shutil.ignore_patterns(".*", "tests", "docs", "runs", "site", "__pycache__", "*.pt")
    shutil.copytree(ROOT, tmp_path / "tree", ignore=skipped)
    settings = {"TUTORIAL_EPOCHS": "1", "TUTORIAL_PROJECT": "runs/short", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=500", "tutorial.ipynb"]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, cwd=tmp_path / "tree", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "1 passed" in done.stdout
    assert (tmp_path / "tree/runs/short/train/weights/best.torchscript").is_file()
