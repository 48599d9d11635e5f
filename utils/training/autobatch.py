"""Choosing the batch size that fits into memory (``--batch-size -1``)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch

from models.yolo import Model
from utils.config.train_slices import StepOptions
from utils.core.errors import InputError
from utils.core.memory import GIB, free_memory
from utils.core.names import counted
from utils.training.dry_run import MIB, training_memory

LOG = logging.getLogger(__name__)
# On a CPU more images per batch do not train faster (tests/benchmarks/train_step.py): v6.1's default is the most.
CPU_CAP, GPU_CAP = 16, 1024
# Share of the free memory to be used. A CPU's is also that of the workers and of every other program.
CPU_SHARE, GPU_SHARE = 0.7, 0.9


def batch_at(limit: float, measured: dict[int, float]) -> float:
    """Return the batch at which memory reaches ``limit`` bytes, if it grows in a straight line; may be infinite.

    Args:
        limit: in bytes.
        measured: bytes by batch. The line goes through the two largest: costs of small batches only would bend it.
    """
    (batch, memory), (larger, more) = sorted(measured.items())[-2:]
    slope = (more - memory) / (larger - batch)
    return batch + (limit - memory) / slope if slope > 0 else math.inf


def largest_batch(measure: Callable[[int], float], limit: float, cap: int, multiple: int = 1) -> int:
    """Return the largest batch up to ``cap`` that was run and stayed within ``limit``.

    Small batches are measured; the batch that a line through them predicts is run as well and, as long as that fails,
    a smaller one.

    Args:
        measure: runs a training step of so many images and returns the bytes it took at most; infinite when it failed
            for want of memory.
        limit: bytes that may be taken.
        cap: largest batch of use.
        multiple: the batch must be a multiple of this.

    Raises:
        InputError: not even the smallest batch fits.
    """
    measured: dict[int, float] = {}
    too_large = cap // multiple * multiple + multiple  # the smallest batch known not to fit
    largest = 0
    candidates = [batch for batch in (multiple, 2 * multiple, 4 * multiple) if batch < too_large]
    while True:
        finite = {batch: memory for batch, memory in measured.items() if memory < math.inf}
        if candidates:
            batch = candidates.pop(0)
        else:
            predicted = batch_at(limit, finite) if len(finite) > 1 else 2 * largest
            batch = int(min(predicted, too_large - multiple)) // multiple * multiple
        if not largest < batch < too_large:
            break
        measured[batch] = measure(batch)
        if measured[batch] <= limit:
            largest = batch
        else:
            too_large, candidates = batch, []
    if not largest:
        memory = measured.get(multiple, math.inf)
        needed = "more than there is" if math.isinf(memory) else f"{memory / GIB:.2f} GiB"
        raise InputError(
            f"--batch-size -1: a training step of {counted(multiple, 'image')} needs {needed}, and "
            f"{limit / GIB:.2f} GiB may be used; take a smaller --imgsz or model, or free memory"
        )
    return largest


def choose_batch_size(
    model: Model, imgsz: int, device: torch.device, options: StepOptions, images: int, share: float | None = None
) -> int:
    """Return the batch size for ``--batch-size -1``, by training steps on noise with copies of the model.

    It is a multiple of 4 with ``--quad``, and fits the largest size of ``--multi-scale``. On a CPU it is 16 at most,
    and never more than there are images.

    Args:
        model: does not change; moved to ``device``.
        imgsz: side of the training images.
        device: that is trained on.
        options: of the training step.
        images: of the training set.
        share: of the free memory that may be used; None: 0.9 on a GPU, 0.7 on a CPU.

    Raises:
        InputError: not even the smallest batch fits, or the system does not report its free memory.
    """
    free = free_memory(device)
    if free is None:
        raise InputError("--batch-size -1: this system does not report how much memory is free; give a number")
    cuda = device.type == "cuda"
    share = (GPU_SHARE if cuda else CPU_SHARE) if share is None else share
    model.to(device)
    side = imgsz
    if options.multi_scale:
        stride = int(model.stride.max())
        side = math.floor(imgsz * 1.5 / stride) * stride
    multiple = 4 if options.quad else 1
    cap = max(multiple, min(GPU_CAP if cuda else CPU_CAP, images))
    # The copied model stands for the EMA model of training; but Adam keeps a second momentum.
    more = sum(p.numel() * p.element_size() for p in model.parameters()) * (options.optimizer != "SGD")

    def measure(batch: int) -> float:
        images_of_step, edge = (batch // 4, 2 * side) if options.quad else (batch, side)
        try:
            taken = training_memory(model, images_of_step, edge, device, options.amp) * MIB + more
        except (RuntimeError, MemoryError) as error:
            # torch.OutOfMemoryError is a RuntimeError; on a CPU torch reports a failed "alloc".
            if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "alloc" in str(error):
                return math.inf
            raise
        finally:
            if cuda:
                torch.cuda.empty_cache()
        LOG.info("  %s: %.2f GiB", counted(batch, "image"), taken / GIB)
        return taken

    limit = share * free
    LOG.info("--batch-size -1: steps at %d px; %.1f of %.1f GiB free may be used", side, limit / GIB, free / GIB)
    batch = largest_batch(measure, limit, cap, multiple)
    LOG.info("--batch-size %d chosen%s", batch, f" (the most on this device: {cap})" if batch == cap else "")
    return batch
