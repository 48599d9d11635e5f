"""Whether a file computes what PyTorch computes, and how fast."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fuse import fuse
from models.memory_format import set_memory_format
from utils.core.errors import InputError
from utils.core.nms import non_max_suppression
from utils.core.rounding import (
    DifferenceNorms,
    OutputDifference,
    OutputGroups,
    compare_outputs,
    differences,
    largest_difference,
)
from utils.export.export_job import ExportJob
from utils.export.onnx_nms import run_onnx, with_raw
from utils.inference.backends.base import FileBackend
from utils.inference.backends.metadata import Metadata

# Of the largest difference: what is allowed of every model, and the most that the model's own rounding can excuse.
FLOAT32_TOLERANCE, ROUNDING_CAP = 1e-5, 5e-2
HALF_TOLERANCE = 5e-2
BATCHES = (1, 3, 8)
_WARM, _RUNS, _SECONDS = 2, 15, 3.0


@dataclass(frozen=True)
class Proof:
    """Result of running a file beside PyTorch.

    Attributes:
        worst: the largest difference over all runs (scores; boxes as a share of the image's longer side), None for a
            file that does not run on this system.
        ms: per image, None likewise.
        note: a remark, such as why it was not run.
        limit: what was allowed of ``worst``, None where it computes something else on purpose.
        exact: it was run and gives what PyTorch gives, but for rounding in float32.
    """

    worst: float | None
    ms: float | None
    note: str = ""
    limit: float | None = None
    exact: bool = False


def prove(backend: FileBackend, job: ExportJob) -> Proof:
    """Run the file at several batches and sizes, as far as its axes are free, beside the model itself.

    Raises:
        InputError: the file does not run, or differs by more than the tolerance of its precision.
    """
    reference, gaps = Reference(job), []
    for batch, hw in cases(backend.info):
        images = sample_images(batch, hw).to(job.device)
        gaps.append(reference.gap(backend, images))
        if backend.info.nms:
            difference = nms_difference(backend, job, images)
            if difference > FLOAT32_TOLERANCE:
                raise InputError(f"its NMS gives other boxes than detect.py (by {difference:.2g}): not kept")
    worst_gap = largest_difference(gaps)
    if worst_gap.fault:
        cure = "; half precision may be too coarse for this model: drop --half" if job.options.half else ""
        raise InputError(f"differs from PyTorch {worst_gap.fault}: not kept{cure}")
    run = backend.run if backend.info.raw_levels else backend
    ms = time_ms(run, sample_images(backend.info.batch, backend.info.imgsz).to(job.device))
    exact = not (job.options.half or job.options.int8)
    return Proof(worst_gap.worst, ms, limit=None if math.isinf(worst_gap.limit) else worst_gap.limit, exact=exact)


def cases(info: Metadata) -> Iterator[tuple[int, tuple[int, int]]]:
    """(batch, (height, width)) to be run: batches 1, 3 and 8 and two sizes where these are free."""
    height, width = info.imgsz
    smaller = [max(info.stride, side // 2 // info.stride * info.stride) for side in (height, width + info.stride)]
    second = (smaller[0] if "height" in info.dynamic else height, smaller[1] if "width" in info.dynamic else width)
    if second == info.imgsz:  # at the least size
        second = tuple(side + info.stride * (a in info.dynamic) for side, a in zip(second, ("height", "width")))  # type: ignore[assignment]
    for batch in BATCHES if info.fixed_batch is None else (info.fixed_batch,):
        yield batch, info.imgsz if batch == 1 else second
    if info.fixed_batch is not None:
        yield info.fixed_batch, info.imgsz
    elif second != info.imgsz:
        yield 1, second


def sample_images(batch: int, hw: tuple[int, int]) -> Tensor:
    """[B, 3, H, W] in 0..1, the same in every run: patches of colour with noise."""
    random = torch.Generator().manual_seed(0)
    patches = torch.rand(batch, 3, max(2, hw[0] // 16), max(2, hw[1] // 16), generator=random)
    noise = torch.rand(batch, 3, *hw, generator=random)
    return (0.8 * F.interpolate(patches, size=hw, mode="nearest") + 0.2 * noise).clamp(0, 1)


class Reference:
    """The model in PyTorch, its norms folded unless raw predictions are compared."""

    def __init__(self, job: ExportJob) -> None:
        self.raw, self.options = job.options.train, job.options
        self.plain, self.model = job.model, copy.deepcopy(job.model).eval()
        if self.raw:
            self.model.head.train()
        else:
            fuse(self.model)

    @torch.no_grad()
    def gap(self, net: Callable[[Tensor], Any], images: Tensor) -> OutputDifference:
        """How far the outputs of a file, or of another model, are from PyTorch's, and how far they may be.

        Raises:
            InputError: they are of other shapes.
        """
        expected = self.groups(self.model(images), images)
        if self.raw and isinstance(net, FileBackend):
            given: Any = [torch.as_tensor(output).to(images.device) for output in net.run(images)]
        elif isinstance(net, FileBackend) and net.info.nms:
            given = raw_and_detections(net, images)[1], None
        else:
            given = net(images)
        computed = self.groups(given, images)
        for (_, a), (_, b) in zip(expected, computed, strict=True):
            if a.shape != b.shape:
                raise InputError(f"gives {list(b.shape)} where PyTorch gives {list(a.shape)}: not kept")
        limits = (FLOAT32_TOLERANCE, ROUNDING_CAP)
        if self.options.int8 or self.options.half:
            limits = (math.inf,) * 2 if self.options.int8 else (HALF_TOLERANCE,) * 2
        return compare_outputs(expected, computed, lambda: self.rounding(images), *limits)

    def rounding(self, images: Tensor) -> list[DifferenceNorms]:
        """How far float32 is off float64, at most, in three ways: as is, in another layout, with norms not folded."""
        other = copy.deepcopy(self.model)
        set_memory_format(other, torch.channels_last)
        runs = [self.model(images), other(images.contiguous(memory_format=torch.channels_last))]
        runs += [] if self.raw else [self.plain(images)]
        try:
            exact = self.groups(other.double()(images.double()), images)
        except RuntimeError:  # a layer that takes float32 only: what is left are the ways it can be computed
            exact = self.groups(runs[0], images)
        each = [differences(self.groups(run, images), exact) for run in runs]
        return [reduce(or_, group) for group in zip(*each)]

    def groups(self, output: Any, images: Tensor) -> OutputGroups:
        """The raw predictions of the levels; or boxes, as fractions of the longer side, and scores."""
        if self.raw:
            return [(f"level {level}", one.cpu()) for level, one in enumerate(output)]
        boxes = output[0].cpu()
        return [("boxes", boxes[..., :4] / max(images.shape[2:])), ("scores", boxes[..., 4:])]


def raw_and_detections(backend: FileBackend, images: Tensor) -> tuple[Tensor, Tensor]:
    """The detections of an ONNX file with NMS inside [B, k, 6], and its candidates before NMS [B, N, no]."""
    import onnx

    model = with_raw(onnx.load(backend.file))
    detections, raw = (
        torch.from_numpy(output) for output in run_onnx(model, images.half() if backend.fp16 else images)
    )
    return detections, raw


def nms_difference(backend: FileBackend, job: ExportJob, images: Tensor) -> float:
    """The largest difference between the NMS inside a file and that of detect.py on the same candidates."""
    options, largest = job.options, 0.0
    detections, raw = raw_and_detections(backend, images)
    own = non_max_suppression(
        raw, options.conf_thres, options.iou_thres, agnostic=options.agnostic_nms, max_det=raw.shape[1]
    )
    for rows, expected in zip(detections, own):
        earlier = (expected[:, 5:] == expected[:, 5]).tril(-1).sum(1)  # better ones of the same class
        expected = expected[earlier < options.topk_per_class][: options.topk_all]
        kept = rows[rows[:, 4] > 0]
        if len(kept) != len(expected) or rows[len(kept) :].any():
            raise InputError(f"its NMS keeps {len(kept)} boxes, detect.py {len(expected)}: not kept")
        if len(kept):
            largest = max(
                largest, worst(boxes_as_fractions(expected, images)[:, :5], boxes_as_fractions(kept, images)[:, :5])
            )
    return largest


def boxes_as_fractions(decoded: Tensor, images: Tensor) -> Tensor:
    """Boxes [..., 4+] as fractions of the longer side, scores unchanged."""
    return torch.cat([decoded[..., :4] / max(images.shape[2:]), decoded[..., 4:]], dim=-1)


def worst(expected: Tensor, computed: Tensor) -> float:
    """The largest difference.

    Raises:
        InputError: of other shapes.
    """
    if expected.shape != computed.shape:
        raise InputError(f"gives {list(computed.shape)} where PyTorch gives {list(expected.shape)}: not kept")
    return float((expected - computed).abs().max())


@torch.no_grad()
def time_ms(run: nn.Module | Callable[[Tensor], object], images: Tensor) -> float:
    """Milliseconds per image: the median of up to 15 runs after 2 for warming up, for about 3 s at most."""
    seconds: list[float] = []
    for turn in range(_WARM + _RUNS):
        start = _now(images)
        run(images)
        seconds.append(_now(images) - start)
        if turn > _WARM and sum(seconds) > _SECONDS:
            break
    return 1000 * statistics.median(_steady(seconds)) / len(images)


def _steady(seconds: Sequence[float]) -> Sequence[float]:
    return seconds[_WARM:] or seconds


def _now(images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()
