"""What training tells the outside: event records, the base class of listeners, and the list that calls them.

Callbacks observe. Nothing that changes weights belongs into one.
"""

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
    """Everything is built, the first epoch is about to begin.

    ``labels`` are all training boxes, [N, 5] class and normalised centre box. ``resumed_epoch`` is the index of the
    first epoch that will run: 0 for a new run.
    """

    save_dir: Path
    epochs: int
    names: tuple[str, ...]
    labels: np.ndarray  # [N, 5] class, xywhn
    resumed_epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class EpochStart:
    """Epoch ``epoch`` (from 0) begins; ``temperature`` is that of dynamic convolution, None for a static model."""

    epoch: int
    epochs: int
    temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class BatchEnd:
    """One training batch is done.

    ``index`` counts within the epoch, ``iteration`` over the whole run. ``batch`` has ``images`` [B, 3, H, W] uint8,
    ``targets`` [N, 6] and ``paths``; its class lives on a higher floor. ``losses`` are box, objectness and class.
    """

    epoch: int
    index: int
    iteration: int
    batch: Any
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """The training part of an epoch is over. ``losses`` are the epoch's means of box, objectness and class loss."""

    epoch: int
    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ValEnd:
    """A validation is done. ``metrics`` are figures by column name, ``per_class_ap`` is the mAP by class name.

    ``routing`` has a ``RoutingStats`` per dynamic layer, none for a static model; the class lives on a higher floor.
    """

    epoch: int
    metrics: Mapping[str, float]
    per_class_ap: Mapping[str, float]
    routing: Sequence[Any] = ()


@dataclass(frozen=True, kw_only=True)
class FitEpochEnd:
    """Training and validation of an epoch are over; ``row`` is its line of the results file, without the epoch."""

    epoch: int
    row: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint lies at ``path``; ``best`` tells whether it is the best so far."""

    path: Path
    epoch: int
    best: bool


@dataclass(frozen=True, kw_only=True)
class TrainEnd:
    """The run is over. ``best`` is the best checkpoint, or None when none was written."""

    save_dir: Path
    best: Path | None
    epochs_run: int


class Callback:
    """Base of all listeners: every method does nothing, so a subclass writes only those it needs."""

    def on_train_start(self, event: TrainStart) -> None:
        """The run begins."""

    def on_train_epoch_start(self, event: EpochStart) -> None:
        """An epoch begins."""

    def on_train_batch_end(self, event: BatchEnd) -> None:
        """A batch is done."""

    def on_train_epoch_end(self, event: EpochEnd) -> None:
        """The training part of an epoch is over."""

    def on_val_end(self, event: ValEnd) -> None:
        """A validation is done."""

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """An epoch is over, validation included."""

    def on_model_save(self, event: CheckpointSaved) -> None:
        """A checkpoint has been written."""

    def on_train_end(self, event: TrainEnd) -> None:
        """The run is over."""


class Callbacks(Callback):
    """Passes each event to a list of callbacks, in order. An exception in one of them ends the run, as bugs should.

    But not an OSError: that a curve or a table cannot be written, for want of room, is a warning and not worth a run.

    Being a callback itself, it can also be an entry of another list.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self._callbacks = list(callbacks)
        self._actions: dict[str, list[dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, callback: Callback) -> None:
        """Append a callback; it hears the events from now on."""
        self._callbacks.append(callback)

    # v6.1's use, as a register of functions by the names of events: scripts with a loop of their own call ``run``.

    def register_action(self, hook: str, name: str = "", callback: Callable[..., Any] | None = None) -> None:
        """Have ``run(hook)`` call a function."""
        if not callable(callback):
            raise TypeError(f"callback {callback!r} of {hook} is not a function")
        self._actions.setdefault(hook, []).append({"name": name, "callback": callback})

    def get_registered_actions(self, hook: str | None = None) -> Any:
        """The functions of one event, or of all by its name, as dicts with ``name`` and ``callback``."""
        return self._actions.get(hook, []) if hook else self._actions

    def run(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call the functions registered for an event, in order."""
        for action in self._actions.get(hook, ()):
            action["callback"](*args, **kwargs)

    def _tell(self, name: str, event: Any) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, name)(event)
            except OSError as error:
                logger.warning("%s: not written by %s, the run goes on: %s", name, type(callback).__name__, error)

    def on_train_start(self, event: TrainStart) -> None:
        self._tell("on_train_start", event)

    def on_train_epoch_start(self, event: EpochStart) -> None:
        self._tell("on_train_epoch_start", event)

    def on_train_batch_end(self, event: BatchEnd) -> None:
        self._tell("on_train_batch_end", event)

    def on_train_epoch_end(self, event: EpochEnd) -> None:
        self._tell("on_train_epoch_end", event)

    def on_val_end(self, event: ValEnd) -> None:
        self._tell("on_val_end", event)

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        self._tell("on_fit_epoch_end", event)

    def on_model_save(self, event: CheckpointSaved) -> None:
        self._tell("on_model_save", event)

    def on_train_end(self, event: TrainEnd) -> None:
        self._tell("on_train_end", event)
