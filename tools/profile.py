"""Parameters, GFLOPs and milliseconds of each layer of a model.

    python -m tools.profile --cfg yolov5n_dynamic.yaml --imgsz 640 --batch-size 1 --device cpu
    python -m tools.profile --weights runs/train/exp/weights/best.pt --fuse

GFLOPs are 2 x multiply-adds / 1e9 as ``torch.utils.flop_counter`` counts them: convolutions and matrix products,
in modules or functions, so that dynamic layers are counted like all others; norms, activations and pooling are not.
"""

from __future__ import annotations

import copy
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.options import PROFILED_CFG, ProfileOptions
from utils.config.cli import answer_early, run_script

answer_early(ProfileOptions, __name__)

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.fuse import fuse
from models.summary import log_unused
from models.user_modules import load_modules
from models.yolo import Model
from utils.checkpoint import load_model
from utils.config.sizes import chosen_side
from utils.core.device import select_device
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
WARM_UP_RUNS = 2  # calls before the clock counts: the first ones allocate memory and choose algorithms


@dataclass(frozen=True)
class LayerProfile:
    """Cost of one row of the model yaml; ``gflops`` and ``ms`` are per image, whatever the batch.

    ``out_shape`` is that of the whole batch; for the head it is that of the decoded boxes.
    """

    index: int
    type: str
    sources: tuple[int, ...]
    params: int
    gflops: float
    ms: float
    out_shape: tuple[int, ...]


def profile_layers(
    model: Model, imgsz: int = 640, batch: int = 1, repeats: int = 10, device: torch.device | str | None = None
) -> list[LayerProfile]:
    """Run a copy of ``model`` in evaluation mode on a grey batch and measure every layer of its yaml.

    Args:
        model: left as it is.
        imgsz: side of the square images in pixels, a multiple of the largest stride.
        batch: images at a time.
        repeats: timed runs, of which each layer's median counts.
        device: where to run; that of the model if not given.

    Raises:
        InputError: a size that is no multiple of the stride, or a number below 1.
    """
    if batch < 1 or repeats < 1:
        raise InputError(f"batch {batch} and repeats {repeats} must be at least 1")
    stride = int(model.stride.max())
    if imgsz < stride or imgsz % stride:
        raise InputError(f"imgsz {imgsz} is not a multiple of the model's largest stride {stride}")
    place = torch.device(device) if device is not None else next(model.parameters()).device
    shape = (batch, int(model.yaml.get("ch", 3)), imgsz, imgsz)
    flops = count_flops(model, shape)
    seconds, shapes = _time(copy.deepcopy(model).to(place).eval(), shape, place, repeats)
    return [
        LayerProfile(
            index=index,
            type=str(getattr(layer, "type", type(layer).__name__)),
            sources=tuple(model.sources[index]),
            params=sum(p.numel() for p in layer.parameters()),
            gflops=flops[index] / batch / 1e9,
            ms=statistics.median(seconds[index]) * 1000 / batch,
            out_shape=shapes[index],
        )
        for index, layer in enumerate(model.model)
    ]


@contextmanager
def _around_layers(model: Model, before: Callable[[int], None], after: Callable[[int, Any], None]) -> Iterator[None]:
    """For the time of the block, call ``before(index)`` and ``after(index, output)`` around every layer."""
    hooks = []
    for index, layer in enumerate(model.model):
        hooks.append(layer.register_forward_pre_hook(lambda *_, i=index: before(i)))
        hooks.append(layer.register_forward_hook(lambda _, __, output, i=index: after(i, output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def count_flops(model: Model, shape: Sequence[int]) -> list[int]:
    """Operations (2 x multiply-adds) of every layer for a batch of ``shape`` [B, C, H, W]; nothing is computed."""
    shadow = copy.deepcopy(model).to("meta").float().eval()
    # torch's attention has a shortcut for inference whose operations the counter cannot see; gradients rule it out.
    shadow.requires_grad_(True)
    started, spent = [0] * len(shadow.model), [0] * len(shadow.model)
    counter = FlopCounterMode(display=False)

    def before(index: int) -> None:
        started[index] = counter.get_total_flops()

    def after(index: int, output: Any) -> None:
        spent[index] = counter.get_total_flops() - started[index]

    with torch.enable_grad(), counter, _around_layers(shadow, before, after):
        shadow(torch.zeros(*shape, device="meta"))
    return spent


def _time(
    model: Model, shape: Sequence[int], device: torch.device, repeats: int
) -> tuple[list[list[float]], list[tuple[int, ...]]]:
    """Seconds of every layer in each run, and the shape of its output."""
    count = len(model.model)
    started = [0.0] * count
    seconds: list[list[float]] = [[] for _ in range(count)]
    shapes: list[tuple[int, ...]] = [()] * count

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # kernels run asynchronously
        return time.perf_counter()

    def before(index: int) -> None:
        started[index] = now()

    def after(index: int, output: Any) -> None:
        seconds[index].append(now() - started[index])
        shapes[index] = tuple((output if isinstance(output, Tensor) else output[0]).shape)

    images = torch.full(tuple(shape), 0.5, device=device, dtype=next(model.parameters()).dtype)
    with torch.no_grad(), _around_layers(model, before, after):
        for _ in range(WARM_UP_RUNS + repeats):
            model(images)
    return [times[WARM_UP_RUNS:] for times in seconds], shapes


def format_profile(rows: Sequence[LayerProfile]) -> list[str]:
    """A table, line by line: a header, a line per layer with its shares of the totals, the totals."""
    gflops, ms = sum(row.gflops for row in rows), sum(row.ms for row in rows)
    lines = [f"{'':>4}{'from':>14}{'parameters':>13}{'GFLOPs':>10}{'%':>7}{'ms':>10}{'%':>7}  {'module':<16} output"]
    for row in rows:
        sources = str(row.sources[0] if len(row.sources) == 1 else list(row.sources))
        lines.append(
            f"{row.index:>4}{sources:>14}{row.params:>13,}{row.gflops:>10.3f}{_share(row.gflops, gflops)}"
            f"{row.ms:>10.3f}{_share(row.ms, ms)}  {row.type:<16} {'x'.join(map(str, row.out_shape))}"
        )
    params = sum(row.params for row in rows)
    lines.append(f"{'all':>4}{'':>14}{params:>13,}{gflops:>10.3f}{_share(1, 1)}{ms:>10.3f}{_share(1, 1)}")
    return lines


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:>7.1f}" if whole else f"{'-':>7}"


def log_profile(rows: Sequence[LayerProfile]) -> None:
    """Log the table."""
    for line in format_profile(rows):
        LOG.info(line)


def main(options: ProfileOptions) -> None:
    load_modules(options.modules)
    device = select_device(options.device)
    model = load_model(options.weights, device)[0] if options.weights else Model(options.cfg or PROFILED_CFG)
    if options.fuse:
        fuse(model.eval())
    imgsz = chosen_side(options.imgsz, [model.imgsz], int(model.stride.max()))
    rows = profile_layers(model, imgsz, options.batch_size, options.repeats, device)
    log_profile(rows)
    log_unused(model)
    LOG.info(
        "%s: GFLOPs and ms per image of %d x %d px, batch %d, median of %d runs on %s",
        options.weights or options.cfg or PROFILED_CFG,
        imgsz,
        imgsz,
        options.batch_size,
        options.repeats,
        device,
    )


if __name__ == "__main__":
    sys.exit(run_script(main, ProfileOptions))
