"""The batches of an epoch or a validation, until a signal requests to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import Tensor

from utils.datasets.loader import Batch
from utils.datasets.loader_errors import NoBatchError, iterate_batches, loader_failure
from utils.evaluation.evaluator import Observer
from utils.training.signals import StopSignals


def batches_until_stopped(loader: Iterable[Batch], stop: StopSignals) -> Iterator[Batch]:
    """Yield the batches of a loader until a signal requests to stop; all ranks get one more batch, or none of them.

    Raises:
        NoBatchError: a rank cannot make the next batch; the message says why.
    """
    batches = iterate_batches(loader)
    while not stop.requested:
        batch: Batch | None = None
        fault: NoBatchError | None = None
        try:
            with worker_errors(stop):
                batch = next(batches, None)
        except NoBatchError as error:
            if not stop.received:  # otherwise the workers may have received the signal too and have ended
                fault = error
        except RuntimeError:
            if not stop.received:
                raise
        stop.synchronize()
        if stop.requested:
            return
        if stop.ranks.any(fault is not None):
            faults = stop.ranks.gather(fault and str(fault))
            raise fault or NoBatchError(next(text for text in faults if text))
        if batch is None:
            return
        yield batch


@contextlib.contextmanager
def worker_errors(stop: StopSignals) -> Iterator[None]:
    """While open, torch may report a dead worker; at its end such errors are deferred again.

    Raises:
        NoBatchError: instead of torch's error.
    """
    try:
        stop.raise_worker_errors()
        yield
    except RuntimeError as error:
        if reason := loader_failure(error):
            raise NoBatchError(reason) from error
        raise
    finally:
        stop.defer_worker_errors()


class ValidationStopped(RuntimeError):
    """A signal arrived during a validation."""


class StopObserver(Observer):
    """Observer that ends a validation when a signal arrives: it may be long, and a resumed run repeats it."""

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Raise ValidationStopped after a signal, on all ranks at the same batch."""
        self.stop.synchronize()
        if self.stop.requested:
            raise ValidationStopped
