"""Options by keyword."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from utils.config.keywords import options_from
from utils.config.options import DetectOptions, TrainOptions, ValOptions
from utils.errors import InputError


@pytest.fixture(autouse=True)
def handlers(log_handlers_restored: None) -> None:
    """The first call may install a handler."""


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"imgsz": 320}, "imgsz", (320,)),
        ({"imgsz": [320, 640]}, "imgsz", (320, 640)),
        ({"weights": Path("a.pt")}, "weights", ("a.pt",)),
        ({"weights": ""}, "weights", ()),
        ({"classes": 2}, "classes", (2,)),
        ({"classes": None}, "classes", None),
        ({"device": 0}, "device", "0"),
        ({"source": Path("pictures")}, "source", "pictures"),
        ({"nosave": True}, "nosave", True),
        ({"conf_thres": 0.5}, "conf_thres", 0.5),
    ],
)
def test_values_take_the_form_of_their_option(given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(options_from(DetectOptions, given), name) == value


def test_options_left_out_keep_their_defaults() -> None:
    assert options_from(ValOptions, {"imgsz": 320}) == ValOptions(imgsz=320)
    assert options_from(TrainOptions, {"resume": True}).resume is True


def test_a_misspelt_option_is_named_with_its_neighbour() -> None:
    with pytest.raises(InputError, match="unknown option 'img_sz'; did you mean 'imgsz'"):
        options_from(ValOptions, {"img_sz": 320})


def test_several_values_for_one_are_refused() -> None:
    assert options_from(ValOptions, {"imgsz": [320]}).imgsz == 320
    with pytest.raises(InputError, match="'imgsz' takes one value, 2 given"):
        options_from(ValOptions, {"imgsz": [320, 320]})


def test_the_limits_of_the_options_hold() -> None:
    with pytest.raises(InputError, match="--conf-thres"):
        options_from(ValOptions, {"conf_thres": 2})


def test_a_program_that_logs_keeps_its_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    own = logging.NullHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [own])
    options_from(ValOptions, {})
    assert logging.getLogger().handlers == [own]
