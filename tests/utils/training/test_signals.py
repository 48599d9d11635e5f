"""Signals become a wish to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from utils.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_the_second_stops_at_once(number: signal.Signals) -> None:
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


def test_the_handlers_of_before_come_back() -> None:
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
