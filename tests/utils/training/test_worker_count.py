"""Loader processes give way to the training."""

from __future__ import annotations

import os
import pickle

import pytest

from utils.training.worker_count import NICENESS, BehindTraining


def test_a_process_is_nicer_and_then_does_what_the_loader_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "nice", lambda more: calls.append(("nice", more)), raising=False)
    BehindTraining(lambda worker: calls.append(("worker", worker)))(3)
    assert calls == [("nice", NICENESS), ("worker", 3)]


def test_where_that_is_not_allowed_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "nice", refuse, raising=False)
    BehindTraining(None)(0)
    monkeypatch.delattr(os, "nice")
    BehindTraining(None)(0)


def test_it_can_be_sent_to_a_new_process() -> None:
    assert pickle.loads(pickle.dumps(BehindTraining(print))).then is print
