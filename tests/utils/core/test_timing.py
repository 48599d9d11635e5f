"""Stage timer, with a clock that is set by hand."""

from __future__ import annotations

from itertools import count

import pytest

from utils.core.timing import StageTimer


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock finds it one second later."""
    clock = count()
    monkeypatch.setattr("utils.core.timing.time.perf_counter", lambda: float(next(clock)))


@pytest.mark.usefixtures("ticking")
def test_seconds_and_images_add_up_per_stage() -> None:
    timer = StageTimer()
    for images in (1, 3):
        with timer.stage("nms", images=images):
            pass
    with timer.stage("read"):
        pass
    assert timer.seconds == {"nms": 2.0, "read": 1.0}
    assert timer.images == {"nms": 4, "read": 0}


def test_milliseconds_are_per_image_in_order_of_first_use() -> None:
    timer = StageTimer()
    timer.add("b", 1.0, images=4)
    timer.add("a", 0.5, images=1)
    assert list(timer.per_image_ms().items()) == [("b", 250.0), ("a", 500.0)]


def test_no_images_give_zero_instead_of_a_division_by_zero() -> None:
    timer = StageTimer()
    assert timer.per_image_ms() == {}
    timer.add("nms", 1.0)
    assert timer.per_image_ms() == {"nms": 0.0}


@pytest.mark.usefixtures("ticking")
def test_a_stage_that_raises_still_counts() -> None:
    timer = StageTimer()
    with pytest.raises(RuntimeError), timer.stage("nms", images=1):
        raise RuntimeError
    assert timer.seconds == {"nms": 1.0}
