"""Options by keyword."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from utils.config.cli import parse
from utils.config.keywords import options_from
from utils.config.options import DetectOptions, TrainOptions, ValOptions
from utils.core.errors import InputError


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
        ({"source": Path("images")}, "source", "images"),
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


@pytest.mark.parametrize("options_class", [TrainOptions, ValOptions, DetectOptions])
def test_the_home_folder_stands_for_a_tilde_in_every_path(
    options_class: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"weights", "cfg", "data", "hyp", "cache_dir", "project", "source", "modules", "resume"}
    for item in fields(options_class):
        if item.name not in names:
            continue
        named = getattr(options_from(options_class, {item.name: "~/a b/x"}), item.name)
        typed = getattr(parse(options_class, [item.metadata["flag"].names[0], "~/a b/x"]), item.name)
        several = item.metadata["flag"].nargs == "+"
        assert named == typed == ((f"{tmp_path}/a b/x",) if several else f"{tmp_path}/a b/x"), item.name
    assert options_from(DetectOptions, {"source": "rtsp://~/1", "name": "~"}).source == "rtsp://~/1"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", ".."])
def test_the_name_of_a_run_stays_below_the_folder_of_the_runs(name: str) -> None:
    with pytest.raises(InputError, match="leads out of --project"):
        options_from(TrainOptions, {"name": name})
