"""detect.py on a looped local stream for minutes: ``python tests/benchmarks/stream_soak.py [--minutes 10 --fps 25]``.

A server on the loopback sends numbered images at a fixed rate, as a network camera does; an untrained model looks
at them, and a video and a table are written. Every half minute a line: the process' memory, frames looked at, and
how old the frame in hand is. Memory and age must not grow, however slow the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import detect  # noqa: E402
from models.yolo import Model  # noqa: E402
from utils.config.options import DetectOptions  # noqa: E402
from utils.core.log import setup_logging  # noqa: E402
from utils.datasets.sources import Frame, LiveSettings, LiveSource  # noqa: E402
from utils.inference.outputs import Outputs  # noqa: E402
from utils.inference.predictor import ImageDetections, Predictor, Thresholds  # noqa: E402

_BITS, _BLOCK_PX = 24, 8


def numbered(number: int) -> bytes:
    """A JPEG that carries a number: a white or black block for each bit along its upper edge."""
    image = np.full((96, _BITS * _BLOCK_PX, 3), 114, np.uint8)
    for bit in range(_BITS):
        image[:_BLOCK_PX, bit * _BLOCK_PX : (bit + 1) * _BLOCK_PX] = 255 * (number >> bit & 1)
    return cv2.imencode(".jpg", image)[1].tobytes()


def number_in(image: np.ndarray) -> int:
    row = image[_BLOCK_PX // 2, _BLOCK_PX // 2 :: _BLOCK_PX, 0]
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


class Camera:
    """Sends image after image to whoever asks; ``number`` is that of the latest."""

    def __init__(self, fps: float) -> None:
        camera = self
        self.number, self.begin = 0, time.monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while True:
                        camera.number = int((time.monotonic() - camera.begin) * fps)
                        jpeg = numbered(camera.number)
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                        time.sleep(1 / fps)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/camera"


def memory_mb() -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


class Watched(Outputs):
    """Writes as usual, and a line about the process every half minute; stops the run when its time is over."""

    def __init__(self, options: DetectOptions, folder: Path, camera: Camera, fps: float, seconds: float) -> None:
        super().__init__(options, folder)
        self.camera, self.fps, self.seconds = camera, fps, seconds
        self.begin = self.said = time.monotonic()
        self.frames, self.oldest = 0, 0.0

    def write(self, frame: Frame, found: ImageDetections) -> None:
        super().write(frame, found)
        self.frames += 1
        now = time.monotonic()
        self.oldest = max(self.oldest, now - self.camera.begin - number_in(frame.image) / self.fps)
        if now - self.said >= 30:
            line = f"{now - self.begin:6.0f} s {memory_mb():8.1f} MB {self.frames:7} frames, oldest {self.oldest:.2f} s"
            print(line, flush=True)
            self.said, self.oldest = now, 0.0

    @property
    def quit(self) -> bool:
        return time.monotonic() - self.begin > self.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fps", type=float, default=25)
    given = parser.parse_args()
    setup_logging()
    model = Model("yolov5n.yaml", nc=2)
    predictor = Predictor(model, torch.device("cpu"), 192, Thresholds(conf=0.0, max_det=5))
    camera = Camera(given.fps)
    with tempfile.TemporaryDirectory() as folder, LiveSource([camera.address], LiveSettings()) as source:
        options = DetectOptions(save_csv=True)
        outputs = Watched(options, Path(folder), camera, given.fps, 60 * given.minutes)
        with contextlib.closing(outputs):
            detect.log_summary(detect.detect(source, predictor, outputs), source, predictor)


if __name__ == "__main__":
    main()
