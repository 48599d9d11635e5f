"""How fast exported files run against eager PyTorch, as ratios in one run.

python tests/benchmarks/export_speed.py best.pt [more.pt ...] [--imgsz 640 320] [--batch 1] [--rounds 15]
    [--formats onnx openvino ...] [--dynamic-form A1] [--threads N]

Every format is made of every checkpoint in a folder that is deleted afterwards, and proved as by export.py. Then all
of them and the fused model in PyTorch take turns on the same images. A ratio above 1 is faster than PyTorch; what
stands behind ± is half the distance between the quartiles of the rounds.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.fuse import fuse
from utils.checkpoint import load_model
from utils.config.export_options import ExportOptions
from utils.export import export_checkpoint
from utils.inference.backends import open_exported

CPU = torch.device("cpu")


def made(weights: str, imgsz: int, folder: Path, options: argparse.Namespace) -> dict[str, nn.Module]:
    """What can be made here, by format, ready to run; PyTorch comes first."""
    model, _ = load_model(weights)
    nets: dict[str, nn.Module] = {"eager": fuse(model.eval())}
    wanted = ExportOptions(
        imgsz=(imgsz,), batch_size=options.batch, include=tuple(options.formats), output=str(folder),
        dynamic_form=options.dynamic_form,
    )  # fmt: skip
    for row in export_checkpoint(Path(weights), wanted, CPU):
        if row.path is not None and row.path.suffix != ".pt":
            nets[row.format] = open_exported(row.path, CPU)
        elif not row.made:
            print(f"  {row.format}: {row.note}")
    return nets


@torch.no_grad()
def seconds(net: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    net(images)
    return time.perf_counter() - start


def compare(weights: str, imgsz: int, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        nets = made(weights, imgsz, Path(folder), options)
        images = torch.rand(options.batch, 3, imgsz, imgsz, generator=torch.Generator().manual_seed(0))
        for net in nets.values():
            for _ in range(3):  # the first runs of a file make plans and buffers
                seconds(net, images)
        rounds = np.array([[seconds(net, images) for net in nets.values()] for _ in range(options.rounds)])
    for name, times in zip(nets, rounds.T):
        low, middle, high = np.percentile(rounds[:, 0] / times, [25, 50, 75])
        ms = 1e3 * np.median(times) / options.batch
        print(f"{Path(weights).stem:<24}{imgsz:>5}  {name:<12}{ms:>8.1f} ms  {middle:>5.2f} ± {(high - low) / 2:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--formats", nargs="+", default=["torchscript", "onnx", "openvino", "pt2"])
    parser.add_argument("--dynamic-form", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: its own choice")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}; ms per image")
    for weights in options.weights:
        for imgsz in options.imgsz:
            compare(weights, imgsz, options)


if __name__ == "__main__":
    main()
