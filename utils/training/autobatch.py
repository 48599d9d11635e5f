"""Finding the batch size that fits into memory (``--batch-size -1``)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.yolo import Model
from utils.config.train_slices import StepOptions
from utils.core.errors import InputError
from utils.core.memory import GIB, free_memory
from utils.core.names import counted
from utils.training.dry_run import MIB, peak_memory

LOG = logging.getLogger(__name__)
# On a CPU more images per batch do not train faster (tests/benchmarks/train_step.py): v6.1's default is the most.
CPU_CAP, GPU_CAP = 16, 1024
# Share of the free memory to be used. A CPU's is also that of the loader processes and of every other program.
CPU_SHARE, GPU_SHARE = 0.7, 0.9


class TooLargeError(RuntimeError):
    """A training step did not fit into memory."""


@dataclass(frozen=True)
class Fit:
    """Bytes of a training step as a straight line over the batch size: ``base + slope * batch``."""

    base: float
    slope: float

    @classmethod
    def through(cls, measured: dict[int, float]) -> Fit:
        """The line through the two largest batches, for whatever is only done for small ones would bend it."""
        (b0, m0), (b1, m1) = sorted(measured.items())[-2:]
        slope = (m1 - m0) / (b1 - b0)
        return cls(m0 - slope * b0, slope)

    def largest(self, limit: float) -> float:
        """The batch at which the line meets ``limit``; infinite when memory does not grow."""
        return (limit - self.base) / self.slope if self.slope > 0 else float("inf")


def largest_batch(measure: Callable[[int], float], limit: float, cap: int, multiple: int = 1) -> int:
    """The largest batch up to ``cap`` that was tried and stayed within ``limit``.

    Small batches are measured and a line put through them; the batch that it promises is tried as well and, as long as
    that fails, a smaller one. So what is returned has run.

    Args:
        measure: runs a training step of so many images and returns the bytes it took at most, or raises
            :class:`TooLargeError`.
        limit: bytes that may be taken.
        cap: largest batch of use.
        multiple: the batch must be a multiple of this.

    Raises:
        InputError: not even the smallest batch fits.
    """
    measured: dict[int, float] = {}
    failed = cap // multiple * multiple + multiple  # the smallest batch known not to do

    def fits(batch: int) -> bool:
        nonlocal failed
        try:
            measured[batch] = measure(batch)
        except TooLargeError:
            failed = min(failed, batch)
            return False
        if measured[batch] > limit:
            failed = min(failed, batch)
            return False
        return True

    good = 0
    for batch in (multiple, 2 * multiple, 4 * multiple):
        if batch >= failed or not fits(batch):
            break
        good = batch
    if not good:
        needed = f"{measured[multiple] / GIB:.2f} GiB" if multiple in measured else "more than there is"
        raise InputError(
            f"--batch-size -1: a training step of {multiple} image{'s' * (multiple > 1)} needs {needed}, and "
            f"{limit / GIB:.2f} GiB may be used; take a smaller --imgsz or model, or make memory free"
        )
    while good + multiple < failed:
        promised = Fit.through(measured).largest(limit) if len(measured) > 1 else 2 * good
        batch = min(int(promised), failed - multiple) // multiple * multiple
        if batch <= good or batch in measured:
            break
        if not fits(batch):
            continue
        good = batch
    return good


def choose_batch_size(
    model: Model, imgsz: int, device: torch.device, options: StepOptions, images: int, share: float | None = None
) -> int:
    """The batch size for ``--batch-size -1``, found by training steps on noise with copies of the model.

    It is a multiple of 4 with ``--quad``, and good for the largest size of ``--multi-scale``. On a CPU it is 16 at
    most, and never more than there are images.

    Args:
        model: left as it is; moved to ``device``.
        imgsz: side of the training images.
        images: of the training set.
        share: of the free memory that may be used; None: 0.9 on a GPU, 0.7 on a CPU.

    Raises:
        InputError: not even the smallest batch fits, or nobody knows how much memory is free.
    """
    free = free_memory(device)
    if free is None:
        raise InputError("--batch-size -1: this system does not tell how much memory is free; give a number")
    cuda = device.type == "cuda"
    share = (GPU_SHARE if cuda else CPU_SHARE) if share is None else share
    model.to(device)
    side = imgsz
    if options.multi_scale:
        stride = int(model.stride.max())
        side = math.floor(imgsz * 1.5 / stride) * stride
    multiple = 4 if options.quad else 1
    cap = max(multiple, min(GPU_CAP if cuda else CPU_CAP, images))
    # The model that is copied stands for its average, which training has as well; but Adam keeps a second momentum.
    more = sum(p.numel() * p.element_size() for p in model.parameters()) * (options.optimizer != "SGD")

    def measure(batch: int) -> float:
        images_of_step, edge = (batch // 4, 2 * side) if options.quad else (batch, side)
        try:
            taken = peak_memory(model, images_of_step, edge, device, options.amp) * MIB + more
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TooLargeError from error
        except RuntimeError as error:
            if "alloc" in str(error):  # how torch says on a CPU that it got no memory
                raise TooLargeError from error
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
