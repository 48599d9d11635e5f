"""Where a run stands inside an epoch, and the batches from there on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils.datasets.loader import Batch
from utils.datasets.loader_errors import NoBatchError, loader_failure, supplied
from utils.evaluation.evaluator import ImageResult
from utils.training.signals import StopSignals


@dataclass
class Position:
    """How much of an epoch is done.

    Attributes:
        epoch: the epoch in progress, from 0.
        batches: how many of its batches have been trained on.
        skipped: how many of these were left out.
        sums: [3] box, objectness and class loss, summed over the others.
        seconds: time they took.
    """

    epoch: int = 0
    batches: int = 0
    skipped: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(3))
    seconds: float = 0.0

    @property
    def means(self) -> tuple[float, float, float]:
        """Mean losses so far; not-a-number before the first batch."""
        count = self.batches - self.skipped
        box, obj, cls = (self.sums / count).tolist() if count else [math.nan] * 3
        return box, obj, cls

    def to_plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        sums = self.sums.tolist()
        return {"batches": self.batches, "skipped": self.skipped, "sums": sums, "seconds": self.seconds}

    @classmethod
    def from_plain(cls, epoch: int, values: dict[str, Any]) -> Position:
        """Put back what :meth:`to_plain` took."""
        return cls(epoch, values["batches"], values["skipped"], torch.tensor(values["sums"]), values["seconds"])


def until_stopped(batches: DataLoader[Any], stop: StopSignals) -> Iterator[Batch]:
    """The batches, until a signal asks to stop; of several processes all get one more, or none does.

    Raises:
        NoBatchError: the next one cannot be made, by this process or another; the message says why.
    """
    supply = supplied(batches)
    while not stop.requested:
        batch: Batch | None = None
        fault: NoBatchError | None = None
        try:
            with loading(stop):
                batch = next(supply, None)
        except NoBatchError as error:
            if not stop.came:  # else loader processes have got the signal too and are gone
                fault = error
        except RuntimeError:
            if not stop.came:
                raise
        stop.agree()
        if stop.requested:
            return
        if stop.ranks.any(fault is not None):
            faults = stop.ranks.gather(fault and str(fault))
            raise fault or NoBatchError(next(text for text in faults if text))
        if batch is None:
            return
        yield batch


@contextlib.contextmanager
def loading(stop: StopSignals) -> Iterator[None]:
    """Here a report of torch that a loader process has died may come, and becomes a NoBatchError; not after it."""
    try:
        stop.let_reports_through()
        yield
    except RuntimeError as error:
        if reason := loader_failure(error):
            raise NoBatchError(reason) from error
        raise
    finally:
        stop.hold_reports()


class StopAsked(RuntimeError):
    """A signal came during the validation."""


class BreakOff:
    """An observer of the validation that ends it when a signal has come: it can be done anew, and may be long."""

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Raises StopAsked when a signal has come, on all processes at the same batch."""
        self.stop.agree()
        if self.stop.requested:
            raise StopAsked

    def on_image(self, result: ImageResult) -> None:
        """Nothing to see."""
