"""Which image size is meant where none is given."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from utils.config.sizes import chosen_side, chosen_size, recorded_size


@pytest.mark.parametrize(
    ("given", "recorded", "expected"),
    [
        ([], [(224, 224)], (224, 224)),
        ([], [None], (640, 640)),
        ([], [(192, 320)], (192, 320)),
        ([], [(100, 224)], (128, 224)),
        ([416], [(224, 224)], (416, 416)),
        ([96, 160], [(224, 224)], (96, 160)),
        ([], [(224, 224), (416, 416)], (416, 416)),
        ([], [(224, 224), None], (640, 640)),
        ([], [(224, 320), (320, 224)], (320, 320)),
    ],
)
def test_a_given_size_wins_over_the_recorded_and_the_largest_of_these_counts(
    given: list[int], recorded: list[Any], expected: tuple[int, int]
) -> None:
    assert chosen_size(given, recorded, 32) == expected


def test_one_number_is_the_longer_side() -> None:
    assert chosen_side(None, [(192, 320)], 32) == 320
    assert chosen_side(416, [(192, 320)], 32) == 416


@pytest.mark.parametrize(
    ("recorded", "line"),
    [
        ([(224, 224)], "image size 224, that of the model file; --imgsz sets another"),
        ([None], "image size 640, since no model file records one; --imgsz sets another"),
        ([(192, 320)] * 2, "image size 192 x 320, that of the model file; --imgsz sets another"),
        ([(640, 640), (96, 96)], "image size 640, the largest of the models' sizes (96, 640); --imgsz sets another"),
    ],
)
def test_the_choice_is_reported_in_one_line(recorded: list[Any], line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chosen_size([], recorded, 32)
    assert caplog.messages == [line]
    caplog.clear()
    chosen_size([64], recorded, 32)
    assert caplog.messages == []


@pytest.mark.parametrize("value", ["224", 31, -640, 10**9, True, 224.0, [64, 64, 64], [64, "64"], {"a": 1}])
def test_a_record_that_is_no_size_is_left_out_with_a_warning(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert recorded_size(value, "a.pt") is None
    assert "a.pt: records the image size" in caplog.text


@pytest.mark.parametrize(
    ("value", "size"), [(None, None), ([], None), (224, (224, 224)), ([96], (96, 96)), ([96, 160], (96, 160))]
)
def test_a_record_is_a_number_or_a_pair(value: Any, size: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert recorded_size(value, "a.pt") == size
    assert not caplog.text
