"""Events and the list of callbacks."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.core.callbacks import (
    BatchEnd,
    Callback,
    Callbacks,
    CheckpointSaved,
    EpochEnd,
    EpochStart,
    FitEpochEnd,
    TrainEnd,
    TrainStart,
    ValEnd,
)

HERE = Path("run")
EVENTS: dict[str, Any] = {
    "on_train_start": TrainStart(save_dir=HERE, epochs=3, names=("a",), labels=np.zeros((0, 5))),
    "on_train_epoch_start": EpochStart(epoch=0, epochs=3),
    "on_train_batch_end": BatchEnd(epoch=0, index=0, iteration=0, batch=None, losses=(1.0, 2.0, 3.0)),
    "on_train_epoch_end": EpochEnd(epoch=0, losses=(1.0, 2.0, 3.0), learning_rates=(0.1,), seconds=1.0),
    "on_val_end": ValEnd(epoch=0, metrics={}, per_class_ap={}),
    "on_fit_epoch_end": FitEpochEnd(epoch=0, row={}),
    "on_model_save": CheckpointSaved(path=HERE / "last.pt", epoch=0, best=False),
    "on_train_end": TrainEnd(save_dir=HERE, best=None, epochs_run=3),
}


class Recorder(Callback):
    """Writes down its name and the event, whichever method is called."""

    def __init__(self, name: str, heard: list[tuple[str, str, Any]]) -> None:
        for method in EVENTS:
            setattr(self, method, lambda event, method=method: heard.append((name, method, event)))


def test_the_table_of_events_covers_every_method() -> None:
    methods = {name for name, _ in inspect.getmembers(Callback, inspect.isfunction) if name.startswith("on_")}
    assert methods == set(EVENTS)


@pytest.mark.parametrize("method", EVENTS)
def test_the_base_class_does_nothing(method: str) -> None:
    assert getattr(Callback(), method)(EVENTS[method]) is None


@pytest.mark.parametrize("method", EVENTS)
def test_every_event_reaches_all_callbacks_in_order(method: str) -> None:
    heard: list[tuple[str, str, Any]] = []
    getattr(Callbacks([Recorder("first", heard), Recorder("second", heard)]), method)(EVENTS[method])
    assert heard == [("first", method, EVENTS[method]), ("second", method, EVENTS[method])]


def test_a_callback_added_later_hears_what_follows() -> None:
    heard: list[tuple[str, str, Any]] = []
    callbacks = Callbacks()
    callbacks.on_train_end(EVENTS["on_train_end"])
    callbacks.add(Recorder("late", heard))
    callbacks.on_train_end(EVENTS["on_train_end"])
    assert len(heard) == 1


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: type(event).__name__)
def test_events_cannot_be_changed(event: Any) -> None:
    name = dataclasses.fields(event)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)


def test_an_exception_in_a_callback_is_not_swallowed() -> None:
    class Broken(Callback):
        def on_train_end(self, event: TrainEnd) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Callbacks([Broken()]).on_train_end(EVENTS["on_train_end"])


def test_a_callback_that_finds_no_room_to_write_costs_a_warning_only(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Callback):
        def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
            raise OSError(28, "No space left on device")

    heard: list[tuple[str, str, Any]] = []
    Callbacks([Full(), Recorder("next", heard)]).on_fit_epoch_end(FitEpochEnd(epoch=0, row={}))
    assert [name for name, *_ in heard] == ["next"]
    assert "Full could not write, the run continues: [Errno 28] No space left" in caplog.text
