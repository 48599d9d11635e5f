"""Signals that stop a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from utils.core.dist import Ranks
from utils.training.signals import StopSignals


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_recorded_and_the_second_stops_at_once(number: signal.Signals) -> None:
    with StopSignals() as stop:
        stop.armed = True
        signal.raise_signal(number)
        assert stop.requested == number.name
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_step_one_signal_stops_at_once(number: signal.Signals) -> None:
    with StopSignals() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert stop.requested == ""


def test_the_previous_handlers_are_restored() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    with StopSignals() as stop:
        stop.armed = True
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignals() as stop:
            stop.armed = True
            signal.raise_signal(signal.SIGHUP)
        assert stop.requested == ""
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_trains_without_handlers() -> None:
    seen = []

    def run() -> None:
        with StopSignals() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [""]


class Two(Ranks):
    """This process and another one, which has got ``other``."""

    other = ""

    def any(self, flag: bool) -> bool:
        return flag or bool(self.other)

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]


def two(other: str = "") -> Two:
    ranks = Two(size=2)
    object.__setattr__(ranks, "other", other)  # the record is frozen
    return ranks


def test_of_several_processes_none_stops_before_all_have_synchronized() -> None:
    with StopSignals(two()) as stop:
        stop.armed = True
        signal.raise_signal(signal.SIGTERM)
        assert (stop.received, stop.requested) == ("SIGTERM", "")
        stop.synchronize()
        assert stop.requested == "SIGTERM"


def test_a_signal_of_another_process_stops_this_one() -> None:
    stop = StopSignals(two("SIGINT"))
    stop.synchronize()
    assert (stop.received, stop.requested) == ("", "SIGINT")


def test_a_signal_that_torchrun_repeats_is_not_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 99.0])
    monkeypatch.setattr("utils.training.signals.time.monotonic", lambda: next(now))
    with StopSignals(two()) as stop:
        stop.armed = True
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    )  # the run is ending: torchrun's signal must not interrupt that


@pytest.fixture
def torch_handler() -> Iterator[None]:
    """A handler such as torch's, which raises when a child of this process has ended."""

    def report(*_: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed")

    before = signal.signal(signal.SIGCHLD, report)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("torch_handler")
def test_a_dead_worker_is_reported_between_two_steps() -> None:
    with StopSignals() as stop:
        stop.defer_worker_errors()
        signal.raise_signal(signal.SIGCHLD)  # in the middle of the step
        with pytest.raises(RuntimeError, match="pid 7"):
            stop.raise_worker_errors()
        stop.defer_worker_errors()
        stop.raise_worker_errors()  # once is enough
        with pytest.raises(RuntimeError, match="pid 7"):  # while the next batch is waited for
            signal.raise_signal(signal.SIGCHLD)


@pytest.mark.usefixtures("torch_handler")
def test_torch_reports_dead_workers_as_before_when_the_run_is_over() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    with StopSignals() as stop:
        stop.defer_worker_errors()
    assert signal.getsignal(signal.SIGCHLD) is before
