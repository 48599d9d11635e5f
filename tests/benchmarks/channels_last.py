"""Eager inference channels-last against contiguous, as ratios in one run.

    python tests/benchmarks/channels_last.py yolov5n.pt yolov5n_dynamic.yaml [--imgsz 640 320] [--batch 1 8]

The fused models take turns on the same images. A ratio below 1 is faster than contiguous: median and quartiles of the
turns, and the ratio of the fastest turns, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.fuse import fuse
from models.memory_format import set_memory_format
from models.yolo import Model
from utils.checkpoint import load_model


def opened(name: str) -> nn.Module:
    """A fused model of a checkpoint, or one of a yaml with random weights."""
    model = load_model(name)[0] if name.endswith(".pt") else Model(name)
    return fuse(model.eval())


def seconds(model: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    model(images)
    return time.perf_counter() - start


@torch.no_grad()
def compare(name: str, model: nn.Module, imgsz: int, batch: int, turns: int) -> None:
    other = copy.deepcopy(model)
    set_memory_format(other, torch.channels_last)
    images = torch.rand(batch, 3, imgsz, imgsz, generator=torch.Generator().manual_seed(0))
    last = images.contiguous(memory_format=torch.channels_last)
    before, after = model(images)[0], other(last)[0]
    difference = float(((before - after).abs() / before.abs().clamp(min=1)).max())
    times = np.array([[seconds(model, images), seconds(other, last)] for _ in range(turns)])
    low, middle, high = np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])
    least = times[:, 1].min() / times[:, 0].min()
    ms = 1e3 * np.median(times, axis=0) / batch
    print(
        f"{Path(name).stem:<20}{imgsz:>4}{batch:>3}  {ms[0]:.1f} -> {ms[1]:.1f} ms  {middle:.2f} [{low:.2f} "
        f"{high:.2f}], of the fastest turns {least:.2f}; difference {difference:.0e}; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640, 320])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in options.models:
        model = opened(name)
        for imgsz in options.imgsz:
            for batch in options.batch:
                compare(name, model, imgsz, batch, options.turns)


if __name__ == "__main__":
    main()
