"""CPU seconds that detect.py needs before it does its work: ``python tests/benchmarks/startup.py [--repeat 5]``.

Each line is the median over fresh processes of user plus system time, which other programs on the machine hardly
change. "first detection" is a whole run on one small image with an untrained nano model; torch's own import is the
part of it that nobody can avoid.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
MAKE = """
import sys, cv2, numpy as np, torch
from models.yolo import Model
from utils.checkpoint import Checkpoint, save_checkpoint
model = Model("yolov5n.yaml", nc=2)
cv2.imwrite(sys.argv[1] + "/a.jpg", np.full((240, 320, 3), 114, np.uint8))
save_checkpoint(__import__("pathlib").Path(sys.argv[1] + "/a.pt"), Checkpoint(
    model_yaml=model.yaml, nc=2, names=["a", "b"], stride=model.stride.tolist(), model=dict(model.state_dict())))
"""


def cpu_seconds(command: list[str], repeat: int) -> float:
    """Median of user plus system time of ``command``; it is run once more before, to fill the caches of the disk."""
    times = []
    for number in range(repeat + 1):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
        if number:
            times.append(usage.ru_utime + usage.ru_stime)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-c", MAKE, folder], cwd=ROOT, check=True)
        detect = [python, "detect.py", "--weights", f"{folder}/a.pt", "--source", f"{folder}/a.jpg", "--imgsz", "320"]
        rows = {
            "interpreter": [python, "-c", "pass"],
            "detect.py --help": [python, "detect.py", "--help"],
            "tools.app --help": [python, "-m", "tools.app", "--help"],
            "import torch": [python, "-c", "import torch"],
            "import torch, torchvision": [python, "-c", "import torch, torchvision"],
            "first detection": [*detect, "--device", "cpu", "--project", f"{folder}/out"],
        }
        for name, command in rows.items():
            print(f"{name:28}{cpu_seconds(command, repeat):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
