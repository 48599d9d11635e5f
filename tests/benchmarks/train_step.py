"""How long a training step takes in each mode, as a ratio to contiguous float32, and the memory it needs, in one run.

python tests/benchmarks/train_step.py [--models yolov5n yolov5n_dynamic] [--imgsz 320 640] [--batch 16 4] [--rounds 5]

A step is forward, loss on random boxes, backward and SGD with momentum, always on the same images. The modes take
turns, one step each, so that whatever else the machine does hits all alike. Ratios are medians over the rounds, with
half the distance between the quartiles. Memory: the most that all tensors had together (see tools.compare).

contiguous: [B, C, H, W] as written. channels last: channels innermost (what train.py takes on a CPU). deterministic:
channels last, and sums in a fixed order (train.py on a CPU again): --modes "channels last" deterministic: its cost.
bf16: autocast. compile: torch.compile with its own kernels. flush: torch.set_flush_denormal, for the thread that asks:
with OMP_NUM_THREADS=1. With one thread the clock is that of the processor, so that waiting for it does not count.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.memory_format import set_memory_format
from models.yolo import Model
from utils.core.memory import keep_freed_memory
from utils.training.dry_run import MIB, TrainingStep, random_images, random_targets, tensor_memory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Mode:
    """A way to run the same step."""

    layout: torch.memory_format = torch.contiguous_format
    amp: bool = False
    compiled: bool = False
    flush: bool = False
    deterministic: bool = False


MODES = {
    "contiguous": Mode(),
    "channels last": Mode(torch.channels_last),
    "deterministic": Mode(torch.channels_last, deterministic=True),
    "bf16": Mode(torch.channels_last, amp=True),
    "flush": Mode(torch.channels_last, flush=True),
    "compile": Mode(compiled=True),
    "compile, last": Mode(torch.channels_last, compiled=True),
}


def make_step(model: Model, mode: Mode, batch: int, imgsz: int) -> Callable[[], None]:
    """A step on a copy of the model."""
    model = copy.deepcopy(model)
    set_memory_format(model, mode.layout)
    images = random_images(model, batch, imgsz, CPU).contiguous(memory_format=mode.layout)
    step = TrainingStep(model, images, random_targets(batch, model.nc, CPU), amp=mode.amp)
    if mode.compiled:
        step.forward = torch.compile(model, dynamic=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # as seed_everything has it

    def run() -> None:
        torch.set_flush_denormal(mode.flush)
        torch.use_deterministic_algorithms(mode.deterministic, warn_only=True)
        step()
        torch.use_deterministic_algorithms(False)
        torch.set_flush_denormal(False)

    return run


def compare(name: str, imgsz: int, batch: int, options: argparse.Namespace) -> None:
    """Print a line per mode."""
    torch.manual_seed(0)
    model = Model(f"{name}.yaml", nc=3)
    steps = {mode: make_step(model, MODES[mode], batch, imgsz) for mode in options.modes}
    for step in steps.values():
        step()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {mode: [] for mode in steps}
    for _ in range(options.rounds):
        for mode, step in steps.items():
            start = clock()
            step()
            seconds[mode].append(clock() - start)
    base = np.array(seconds[options.modes[0]])
    for mode, taken in seconds.items():
        low, ratio, high = np.percentile(np.array(taken) / base, [25, 50, 75])
        memory = tensor_memory(steps[mode]) / MIB if options.memory else float("nan")
        typical = float(np.median(taken))
        print(
            f"{name:<20}{imgsz:>5}{batch:>6}  {mode:<15}{1e3 * typical:>9.0f} ms{batch / typical:>8.1f}"
            f" images/s{ratio:>7.2f} ± {(high - low) / 2:.2f}{memory:>9.0f} MiB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["yolov5n", "yolov5n_dynamic"])
    parser.add_argument("--imgsz", type=int, nargs="+", default=[320, 640])
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES), help="the first is the base")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--keep-freed", action="store_true", help="glibc keeps freed memory, as in train.py on a CPU")
    options = parser.parse_args()
    if options.keep_freed:
        keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ratio of the time to the first mode's")
    for name in options.models:
        for imgsz in options.imgsz:
            for batch in options.batch:
                compare(name, imgsz, batch, options)


if __name__ == "__main__":
    main()
