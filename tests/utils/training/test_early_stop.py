"""Early stopping."""

from __future__ import annotations

from typing import Any

import pytest

from utils.training.early_stop import EarlyStopping


def test_it_stops_when_patience_is_over() -> None:
    stopper = EarlyStopping(patience=2)
    assert [stopper(epoch, value) for epoch, value in enumerate([0.5, 0.4, 0.3])] == [False, False, True]
    assert stopper.best_epoch == 0


def test_equal_fitness_counts_as_better() -> None:
    stopper = EarlyStopping(patience=2)
    assert not any(stopper(epoch, 0.5) for epoch in range(10))
    assert stopper.best_epoch == 9


def test_patience_zero_waits_for_ever() -> None:
    stopper = EarlyStopping(patience=0)
    assert not any(stopper(epoch, 1 / (epoch + 1)) for epoch in range(1000))
    assert not stopper.possible_stop


def test_not_a_number_is_never_the_best() -> None:
    stopper = EarlyStopping(patience=3)
    stopper(0, 0.1)
    stopper(1, float("nan"))
    assert stopper.best_epoch == 0


@pytest.mark.parametrize("cut", range(12))
def test_decisions_are_those_of_the_reference_also_across_a_resume(golden: Any, cut: int) -> None:
    stopper = EarlyStopping(patience=3)
    for epoch, fitness, best, possible, stop in golden.json("tensors")["early_stopping_patience3"]["rows"]:
        if epoch == cut:
            state, stopper = stopper.state_dict(), EarlyStopping(patience=3)
            stopper.load_state_dict(state)
        assert (stopper(epoch, fitness), stopper.best_epoch, stopper.possible_stop) == (stop, best, possible)


def test_the_state_is_made_of_plain_values() -> None:
    stopper = EarlyStopping(patience=3)
    stopper(0, 0.1)
    assert {type(value) for value in stopper.state_dict().values()} <= {int, float, bool}


def test_an_extended_run_waits_anew() -> None:
    stopper = EarlyStopping(patience=2)
    assert [stopper(epoch, 1 - epoch / 10) for epoch in range(3)] == [False, False, True]
    stopper.since = 3
    assert [stopper(epoch, 0.1) for epoch in (3, 4, 5)] == [False, False, True]
    assert stopper.best_epoch == 0
