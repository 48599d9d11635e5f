"""A tiny training run as a process of its own, for the scripts of this folder that harm it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 900.0  # for machines with much else to do


def make_set(folder: Path, images: int = 20) -> Path:
    """Grey images with one coloured rectangle each, half of them to train on; returns the data yaml."""
    rng = np.random.default_rng(0)
    for i in range(images):
        split, c = ("train" if i % 2 else "val"), i // 2 % 2
        image = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)
        x, y = rng.integers(0, 32, 2).tolist()
        image[y : y + 24, x : x + 32] = ((40, 40, 220), (60, 200, 60))[c]
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"images/{split}/{i}.png"), image)
        row = f"{c} {(x + 16) / 64} {(y + 12) / 64} 0.5 0.375\n"
        (folder / f"labels/{split}/{i}.txt").write_text(row, encoding="utf-8")
    data = folder / "data.yaml"
    data.write_text("path: .\ntrain: images/train\nval: images/val\nnames: [red, green]\n", encoding="utf-8")
    return data


class Run:
    """One run folder and the processes that train in it, one after the other.

    Args:
        project: folder of the run folder.
        data: data yaml.
        options: further words of the command line of a new run.

    Attributes:
        launcher: words of the command line before train.py.
    """

    launcher: tuple[str, ...] = ()

    def __init__(self, project: Path, name: str, data: Path, *options: str) -> None:
        self.folder = project / name
        self.words = [
            f"--data={data}", "--cfg=yolov5n_dynamic.yaml", "--imgsz=64", "--batch-size=2", "--workers=2",
            "--device=cpu", f"--project={project}", f"--name={name}", "--exist-ok", *options,
        ]  # fmt: skip
        self.log = project / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def last(self) -> Path:
        return self.folder / "weights/last.pt"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self, *words: str) -> None:
        """Start a process, with ``words`` or the options of a new run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *self.launcher, "train.py", *(words or self.words)],
                cwd=ROOT, stdout=stream, stderr=stream,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
            )  # fmt: skip

    def resume(self) -> None:
        """Start a process that goes on, or begins when nothing has been saved yet."""
        self.start(*([f"--resume={self.last}"] if self.last.exists() else []))

    def kill(self) -> None:
        """kill -9, loader processes too."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def wait_for(self, what: Callable[[], bool]) -> bool:
        """Wait until something has happened; False when the process ended or a time limit passed before."""
        limit = time.monotonic() + LIMIT_S
        while self.process.poll() is None and time.monotonic() < limit:
            if what():
                return True
            time.sleep(0.01)
        return False

    def rows(self) -> list[dict[str, str]]:
        """results.csv without the times."""
        file = self.folder / "results.csv"
        if not file.exists():
            return []
        with file.open(newline="", encoding="utf-8") as stream:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(stream)]

    def line(self, part: str) -> str:
        """The last line of the log with ``part`` in it, "" when there is none."""
        text = self.log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        return next((line.strip() for line in reversed(text.splitlines()) if part in line), "")

    def state(self) -> dict[str, Any]:
        """All tensors and values of the finished run, in full precision."""
        content = vars(load_checkpoint(self.folder / "weights/resume.pt"))
        return {name: content[name] for name in ("model", "ema", "ema_updates", "optimizer", "train_state", "rng")}


def same(a: Any, b: Any) -> bool:
    """Whether two nested records are equal to the last digit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)


def equal_runs(a: Run, b: Run) -> bool:
    """Whether two finished runs have the same results and the same state, to the last digit."""
    return a.rows() == b.rows() and same(a.state(), b.state())


def check(text: str, holds: bool) -> bool:
    """Print a line and whether it holds."""
    print(f"{'ok    ' if holds else 'FAILED'}  {text}", flush=True)
    return holds
