"""Events of training, the base class of callbacks, and the list that calls them. Callbacks never change weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainStart:
    """The first epoch is about to start.

    ``labels`` are all boxes of the training set; ``resumed_epoch`` is the index of the first epoch: 0 for a new run.
    """

    save_dir: Path
    epochs: int
    names: tuple[str, ...]
    labels: np.ndarray  # [N, 5] class, xywhn
    resumed_epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class EpochStart:
    """Epoch ``epoch`` (from 0) starts; ``temperature`` is that of the dynamic layers, None for a static model."""

    epoch: int
    epochs: int
    temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class BatchEnd:
    """A training iteration is finished.

    ``index`` counts within the epoch, ``iteration`` over the whole run. ``batch`` is a :class:`utils.datasets.Batch`.
    ``losses`` are box, objectness and class loss.
    """

    epoch: int
    index: int
    iteration: int
    batch: Any
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """The training part of an epoch is finished; ``losses`` are the means of box, objectness and class loss."""

    epoch: int
    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ValEnd:
    """A validation is finished.

    ``metrics`` are values by column of results.csv, ``per_class_ap`` is the mAP@.5:.95 by class name. ``routing`` has a
    :class:`models.routing.RoutingStats` per dynamic layer.
    """

    epoch: int
    metrics: Mapping[str, float]
    per_class_ap: Mapping[str, float]
    routing: Sequence[Any] = ()


@dataclass(frozen=True, kw_only=True)
class FitEpochEnd:
    """Training and validation of an epoch are finished; ``row`` is its row of results.csv, without the epoch."""

    epoch: int
    row: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint was written to ``path``; ``best``: it is the best so far."""

    path: Path
    epoch: int
    best: bool


@dataclass(frozen=True, kw_only=True)
class TrainEnd:
    """The run is finished. ``best`` is the best checkpoint, None when there is none."""

    save_dir: Path
    best: Path | None
    epochs_run: int


class Callback:
    """Base of all callbacks: each method does nothing, and a subclass overrides those it needs."""

    def on_train_start(self, event: TrainStart) -> None:
        """The run starts."""

    def on_train_epoch_start(self, event: EpochStart) -> None:
        """An epoch starts."""

    def on_train_batch_end(self, event: BatchEnd) -> None:
        """A training iteration is finished."""

    def on_train_epoch_end(self, event: EpochEnd) -> None:
        """The training part of an epoch is finished."""

    def on_val_end(self, event: ValEnd) -> None:
        """A validation is finished."""

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """An epoch is finished, with its validation."""

    def on_model_save(self, event: CheckpointSaved) -> None:
        """A checkpoint has been written."""

    def on_train_end(self, event: TrainEnd) -> None:
        """The run is finished."""


def _forward(name: str) -> Any:
    """The method ``name`` of :class:`Callbacks`: it calls the same method of each callback in the list."""

    def method(self: Callbacks, event: Any) -> None:
        self.notify(name, event)

    return method


class Callbacks(Callback):
    """Passes each event to a list of callbacks, in order.

    An exception of a callback ends the run, but an OSError, such as of a full disk, is only a warning. Scripts with a
    training loop for v6.1 register functions by the name of an event instead, and call ``run``.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self._callbacks = list(callbacks)
        self._actions: dict[str, list[dict[str, Any]]] = {}

    def add(self, callback: Callback) -> None:
        """Append a callback."""
        self._callbacks.append(callback)

    def notify(self, name: str, event: Any) -> None:
        """Call the method ``name`` of each callback with an event."""
        for callback in self._callbacks:
            try:
                getattr(callback, name)(event)
            except OSError as error:
                logger.warning("%s: %s could not write, the run continues: %s", name, type(callback).__name__, error)

    on_train_start = _forward("on_train_start")
    on_train_epoch_start = _forward("on_train_epoch_start")
    on_train_batch_end = _forward("on_train_batch_end")
    on_train_epoch_end = _forward("on_train_epoch_end")
    on_val_end = _forward("on_val_end")
    on_fit_epoch_end = _forward("on_fit_epoch_end")
    on_model_save = _forward("on_model_save")
    on_train_end = _forward("on_train_end")

    def register_action(self, hook: str, name: str = "", callback: Callable[..., Any] | None = None) -> None:
        """Register a function that ``run(hook)`` calls."""
        if not callable(callback):
            raise TypeError(f"callback {callback!r} of {hook} is not a function")
        self._actions.setdefault(hook, []).append({"name": name, "callback": callback})

    def get_registered_actions(self, hook: str | None = None) -> Any:
        """The functions of one event, or of all by the name of the event, as dicts with ``name`` and ``callback``."""
        return self._actions.get(hook, []) if hook else self._actions

    def run(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call the functions registered for an event, in order."""
        for action in self._actions.get(hook, ()):
            action["callback"](*args, **kwargs)
