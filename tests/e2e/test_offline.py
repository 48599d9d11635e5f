"""On a machine without a network: nothing tries to reach one, nothing is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Sockets between processes of one machine (AF_UNIX) are what loader processes talk through; others are refused.
WITHOUT_NETWORK = r"""
import sys

def refuse(event, args):
    network = event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "ssl.wrap_socket")
    network |= event in ("socket.connect", "socket.sendto", "socket.bind") and isinstance(args[1], tuple)
    program = event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
    words = str(args[1] if event == "subprocess.Popen" else args)
    if network or (program and ("pip" in words or "curl" in words or "git" in words)):
        print("REACHED OUT:", event, args, file=sys.stderr, flush=True)
        raise OSError("no network here")

sys.addaudithook(refuse)
from pathlib import Path
import train, val, detect

data, project = sys.argv[1:]
common = dict(device="cpu", project=project, exist_ok=True, imgsz=64)
train.run(data=data, cfg="yolov5n_dynamic.yaml", epochs=1, batch_size=4, workers=1, name="train", **common)
best = f"{project}/train/weights/best.pt"
val.run(data=data, weights=best, workers=0, save_json=True, name="val", **common)
images = str(Path(data).parent / "images/val")
detect.run(weights=best, source=images, conf_thres=0.0, max_det=3, name="detect", **common)
"""


def test_training_scoring_and_detecting_need_no_network(toy: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, str(toy), str(tmp_path / "runs")],
        cwd=ROOT, env={**os.environ, **home, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "REACHED OUT" not in done.stderr
    for name in ("train/weights/best.pt", "train/results.png", "val/metrics.json", "detect/0.png"):
        assert (tmp_path / "runs" / name).is_file()
