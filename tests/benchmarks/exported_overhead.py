"""What an exported file costs through this program, against its bare library on the same input.

    python tests/benchmarks/exported_overhead.py yolov5n.pt [--imgsz 640] [--batch 1 8] [--turns 15] [--folder DIR]

The file is exported with a dynamic batch to ONNX, OpenVINO and AOTInductor, in a folder that is deleted afterwards
(or in ``--folder``, where files of an earlier run are used again). Then the bare library and every way to use the file
take turns: ``DetectMultiBackend``, detect (``Predictor``), ``AutoShape`` and val (``Evaluator``); of the last three
the stage "inference" counts, behind their own pre-processing. Printed is the ratio to the bare library in the same
turn: median and quartiles of the wall clock, and of the processor time of all threads, which a busy machine changes
less and in which active waiting is visible. Run it without OMP_WAIT_POLICY, as users do.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.config.export_options import ExportOptions
from utils.core.dist import Ranks
from utils.core.image import LetterboxInfo
from utils.core.timing import StageTimer
from utils.datasets.loader import Batch
from utils.evaluation import Evaluator
from utils.export import export_checkpoint
from utils.inference.autoshape import AutoShape
from utils.inference.backends import DetectMultiBackend, FileBackend
from utils.inference.backends.openvino import _core as shared_core
from utils.inference.predictor import Predictor

CPU = torch.device("cpu")
PAUSE_S = 0.2  # before every turn: ONNX Runtime by itself waits actively for long after a run
Turn = Callable[[], "float | None"]  # returns the seconds that count, None for all


def export_files(weights: str, imgsz: int, folder: Path) -> dict[str, Path]:
    """Export what is not in the folder yet; files by format."""
    stem = Path(weights).stem
    files = {
        "onnx": folder / f"{stem}.onnx",
        "openvino": folder / f"{stem}_openvino_model",
        "aoti": folder / f"{stem}_aoti.pt2",
    }
    missing = tuple(kind for kind, file in files.items() if not file.exists())
    if missing:
        options = ExportOptions(imgsz=(imgsz,), include=missing, output=str(folder), dynamic=True)
        for row in export_checkpoint(Path(weights), options, CPU):
            if not row.made:
                print(f"{row.format}: {row.note}")
    return {kind: file for kind, file in files.items() if file.exists()}


def bare_call(kind: str, file: Path, images: torch.Tensor) -> Callable[[], Any]:
    """Return a call of the library itself with its default options, in float32 and with the threads of torch."""
    array = images.numpy()
    if kind == "onnx":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {session.get_inputs()[0].name: array})
    if kind == "openvino":
        import openvino

        core = shared_core(openvino)  # two in one process end in a crash
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        request = core.compile_model(next(file.glob("*.xml")), "CPU", hints).create_infer_request()
        return lambda: request.infer([array])
    from utils.inference.backends.aoti import load_package

    package = load_package(file, CPU)
    return lambda: package(images)


def turns_of(model: DetectMultiBackend, photos: list[np.ndarray], images: torch.Tensor) -> dict[str, Turn]:
    """Return the ways to use an exported file, on the same pixels."""
    assert isinstance(model.backend, FileBackend)
    predictor, shaped = Predictor(model.backend, CPU, images.shape[-1]), AutoShape(model, verbose=False)
    info = LetterboxInfo(photos[0].shape[:2], (1.0, 1.0), (0.0, 0.0))
    pixels = (images * 255).round().to(torch.uint8)
    batch = Batch(pixels, torch.zeros(0, 6), [f"{i}.jpg" for i in range(len(photos))], [info] * len(photos))
    evaluator = Evaluator([batch], len(model.names), CPU, ranks=Ranks(rank=1))  # without a bar

    def detect() -> float:
        before = predictor.timer.seconds.get("inference", 0.0)
        predictor.predict(photos)
        return predictor.timer.seconds["inference"] - before

    def val() -> float:
        timer = StageTimer(CPU)
        evaluator.collect(model.backend, timer)
        return timer.seconds["inference"]

    return {
        "DetectMultiBackend": lambda: discard(model(images)),
        "detect": detect,
        "AutoShape": lambda: shaped([p[..., ::-1] for p in photos]).t[1] * len(photos) / 1e3,
        "val": val,
    }


def discard(result: Any) -> None:
    """Drop a result, so that the whole turn counts."""


def measure(turn: Turn) -> tuple[float, float]:
    """Wall clock and processor time of all threads, in seconds; the latter of the whole turn."""
    time.sleep(PAUSE_S)
    wall, processor = time.perf_counter(), time.process_time()
    counted = turn()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return (wall if counted is None else counted), processor


@torch.no_grad()
def compare(kind: str, file: Path, batch: int, options: argparse.Namespace) -> None:
    generator = np.random.default_rng(0)
    photos = [generator.integers(0, 255, (options.imgsz, options.imgsz, 3), np.uint8) for _ in range(batch)]
    pixels = np.stack(photos)[..., ::-1].transpose(0, 3, 1, 2)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    bare = bare_call(kind, file, images)
    ways: dict[str, Turn] = {"bare": lambda: discard(bare())}
    ways |= turns_of(DetectMultiBackend(file, trust=True), photos, images)
    for turn in ways.values():
        measure(turn)
    times = np.array([[measure(turn) for turn in ways.values()] for _ in range(options.turns)])
    for index, name in enumerate(ways):
        low, middle, high = np.percentile(times[:, index] / times[:, 0], [25, 50, 75], axis=0)
        least = times[:, index, 0].min() / times[:, 0, 0].min()
        print(
            f"{kind:<9}{batch:>3}  {name:<19}{1e3 * np.median(times[:, index, 0]) / batch:>8.1f} ms"
            f"   wall {middle[0]:.2f} [{low[0]:.2f} {high[0]:.2f}], of the fastest turns {least:.2f}"
            f"   processor {middle[1]:.2f} [{low[1]:.2f} {high[1]:.2f}]",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino", "aoti"])
    parser.add_argument("--folder", default="")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, OMP_WAIT_POLICY {policy}; ms per image")
    with tempfile.TemporaryDirectory() as temporary:
        files = export_files(options.weights, options.imgsz, Path(options.folder or temporary))
        for batch in options.batch:
            for kind in (kind for kind in options.formats if kind in files):
                print(f"load average {os.getloadavg()[0]:.1f}")
                compare(kind, files[kind], batch, options)


if __name__ == "__main__":
    main()
