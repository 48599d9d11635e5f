"""The line of an epoch in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from utils.core.callbacks import FitEpochEnd, TrainStart
from utils.loggers import console
from utils.loggers.console import ConsoleLogger, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (360000, "100.0 h")],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_each_epoch_but_the_last_reports_the_time_left_by_the_recent_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    logger = ConsoleLogger()
    lines = []
    with caplog.at_level(logging.INFO):
        logger.on_train_start(TrainStart(save_dir=tmp_path, epochs=9, names=("a",), labels=np.zeros((1, 5))))
        for epoch, seconds in enumerate([100.0, *[10.0] * 8]):
            now += seconds
            caplog.clear()
            logger.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row={"seconds": seconds}))
            lines.append(caplog.messages[-1])
    assert lines[0] == "epoch 1/9  s 100.0  13 min left"  # 8 epochs of 100 s
    assert lines[6] == "epoch 7/9  s 10.0  20 s left"  # the slow first one is forgotten
    assert lines[8] == "epoch 9/9  s 10.0"
