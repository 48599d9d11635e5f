"""How long a dynamic 1x1 convolution takes in each form, as a ratio to a plain convolution, in one run.

python tests/benchmarks/dynamic_forms.py [--batch 16] [--repeats 15]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.common import Dynamic_conv2d
from models.dynamic_convolution import DynamicForm

SHAPES = ((128, 64, 40), (256, 128, 20), (512, 256, 40), (1024, 512, 20))  # in, out, side: layers 14 and 10 of n and l


class Forced(Dynamic_conv2d):
    """A layer whose form is given instead of chosen."""

    forced = DynamicForm.GROUPED

    @property
    def form(self) -> DynamicForm:
        return self.forced


def best_seconds(run: Callable[[Tensor], Tensor], x: Tensor, repeats: int) -> float:
    """Forward and backward, the fastest of several."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(x).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, batch {options.batch}, forward and backward")
    print(f"{'in':>6}{'out':>6}{'side':>6}{'plain ms':>10}{'A / plain':>11}{'B / plain':>11}{'B / A':>8}")
    for channels, out, side in SHAPES:
        x = torch.rand(options.batch, channels, side, side, requires_grad=True)
        plain, layer = nn.Conv2d(channels, out, 1), Forced(channels, out, 1, ratio=1)
        base = best_seconds(plain, x, options.repeats)
        seconds = {}
        for form in (DynamicForm.GROUPED, DynamicForm.MATMUL):
            layer.forced = form
            seconds[form] = best_seconds(layer, x, options.repeats)
        a, b = seconds[DynamicForm.GROUPED], seconds[DynamicForm.MATMUL]
        print(f"{channels:>6}{out:>6}{side:>6}{1e3 * base:>10.1f}{a / base:>11.2f}{b / base:>11.2f}{b / a:>8.2f}")


if __name__ == "__main__":
    main()
