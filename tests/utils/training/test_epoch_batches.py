"""The batches of an epoch until a signal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from utils.datasets.loader import EpochSampler
from utils.datasets.loader_errors import NoBatchError
from utils.training.epoch_batches import StopObserver, ValidationStopped, batches_until_stopped
from utils.training.signals import StopSignals


class Keys(Dataset[tuple[int, int]]):
    """Gives back the key it is asked for, and remembers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        self.asked.append(key)
        return key


def loader(workers: int = 0) -> DataLoader[Any]:
    return DataLoader(Keys(), 2, sampler=EpochSampler(7), num_workers=workers, collate_fn=list)


def test_batches_end_after_a_signal() -> None:
    stop, seen = StopSignals(), []
    for batch in batches_until_stopped(loader(), stop):
        seen.append(batch)
        stop.requested = "SIGINT" if len(seen) == 2 else ""
    assert len(seen) == 2


class Failing:
    """A loader whose first batch fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        raise self.error


def test_without_a_signal_the_failure_is_told() -> None:
    with pytest.raises(NoBatchError, match="a worker died"):
        list(batches_until_stopped(Failing(RuntimeError("DataLoader worker (pid 7) is killed")), StopSignals()))  # type: ignore[arg-type]


def test_loader_processes_that_got_the_signal_too_are_no_error() -> None:
    stop = StopSignals()
    stop.requested = "SIGTERM"
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
    assert list(batches_until_stopped(Failing(error), stop)) == []  # type: ignore[arg-type]


def test_a_validation_is_broken_off_after_a_signal() -> None:
    stop = StopSignals()
    observer = StopObserver(stop)
    observer.on_batch(0, None, [])  # type: ignore[arg-type]
    stop.requested = "SIGINT"
    with pytest.raises(ValidationStopped):
        observer.on_batch(1, None, [])  # type: ignore[arg-type]
