"""The whole job in a few minutes: train a small dynamic model on the embedded set, score it, detect with it.

    python -m tools.demo

Each step is the script a user would call, with the command shown, so that any of them can be repeated by hand.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from utils.config.cli import run_script
from utils.config.paths import ROOT
from utils.core.errors import InputError, describe_exit_code

DEMO_RUNS = Path("runs/demo")
FOLDER = ["--project", str(DEMO_RUNS), "--exist-ok"]
BEST = str(DEMO_RUNS / "train/weights/best.pt")
EPOCHS = "10"
STEPS = {
    "train": [
        *("--cfg", "yolov5n_dynamic.yaml", "--epochs", EPOCHS, "--batch-size", "8", "--imgsz", "256", "--workers", "1"),
        *("--optimizer", "AdamW", "--hyp", "data/hyps/hyp.small.yaml", "--name", "train"),
    ],
    "val": ["--weights", BEST, "--name", "val"],
    "detect": ["--weights", BEST, "--source", "data/digits/images/test", "--name", "detect"],
}


@dataclass(frozen=True)
class DemoOptions:
    """``python -m tools.demo`` has no options."""


def run_step(script: str, arguments: list[str]) -> int:
    """One script, its command shown first; returns its exit code.

    Raises:
        InputError: it was killed or crashed.
    """
    command = [f"{script}.py", *arguments, *FOLDER]
    print(f"\n$ python {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if done.returncode < 0:
        raise InputError(f"{script}.py {describe_exit_code(done.returncode)}")
    return done.returncode  # above 0: it has said why


def best_row(results: Path) -> dict[str, str]:
    """The row of results.csv with the highest mAP@.5:.95."""
    with results.open(newline="", encoding="utf-8") as stream:
        return max(csv.DictReader(stream), key=lambda row: float(row["metrics/mAP_0.5:0.95"]))


def main(_: DemoOptions) -> int:
    start = time.perf_counter()
    for script, arguments in STEPS.items():
        if code := run_step(script, arguments):
            return code
    folder = ROOT / DEMO_RUNS
    row = best_row(folder / "train/results.csv")
    print(
        f"\ndone in {(time.perf_counter() - start) / 60:.1f} minutes\n"
        f"best epoch {int(row['epoch']) + 1} of {EPOCHS}: mAP@.5 {float(row['metrics/mAP_0.5']):.3f}, "
        f"mAP@.5:.95 {float(row['metrics/mAP_0.5:0.95']):.3f} on the val split of digits\n"
        f"look at   {folder / 'train/results.png'}\n"
        f"          {folder / 'val/val_batch0_pred.jpg'}\n"
        f"          {folder / 'detect'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main, DemoOptions))
