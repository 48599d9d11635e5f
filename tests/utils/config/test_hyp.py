"""Hyper-parameter files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from utils.config.hyp import Hyp
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.files import read_yaml

FILES = sorted(path.name for path in (ROOT / "data/hyps").glob("*.yaml"))
ADDED = {"hyp.small.yaml"}  # files that v6.1 does not have
OURS = {
    "label_smoothing",
    "warmup_v61",
    "nominal_batch",
    "temperature_start",
    "temperature_end",
    "temperature_step",
    "temperature_span",
    "kernel_lr",
    "attention_lr",
    "kernel_spread",
    "routing_deviation",
    "attention_decay",
    "mosaic9",
    "cutout",
    "hist_equalize",
    "albumentations",
    "grad_clip",
}


def write(folder: Path, text: str) -> Path:
    file = folder / "hyp.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_equal_the_scratch_low_file() -> None:
    assert Hyp.load("hyp.scratch-low.yaml") == Hyp()


@pytest.mark.parametrize("name", sorted(set(FILES) - ADDED))
def test_every_shipped_file_has_the_values_of_v61(golden: Any, name: str) -> None:
    expected = golden.json("hyps_v6.1")[name]
    content = read_yaml(ROOT / "data/hyps" / name)
    assert {key: value for key, value in content.items() if key not in OURS} == expected
    assert {key: Hyp.load(name).to_dict()[key] for key in expected} == expected


def test_every_file_of_v61_is_shipped(golden: Any) -> None:
    assert set(golden.json("hyps_v6.1")) == set(FILES) - ADDED


def test_fields_are_the_keys_of_v61_and_ours(golden: Any) -> None:
    expected = {key for values in golden.json("hyps_v6.1").values() for key in values}
    assert {item.name for item in fields(Hyp)} == expected | OURS


def test_missing_keys_take_the_defaults(tmp_path: Path) -> None:
    assert Hyp.load(write(tmp_path, "lr0: 0.02\n")) == Hyp(lr0=0.02)


def test_a_number_without_a_point_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert Hyp.load(write(tmp_path, "lr0: 1e-3\n")).lr0 == 0.001


def test_a_misspelt_key_names_file_key_and_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, "hsv_hh: 0.1\n")
    with pytest.raises(InputError, match=r"hyp\.yaml: unknown hyper-parameter 'hsv_hh'; did you mean 'hsv_h'"):
        Hyp.load(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0: fast\n", "lr0: 'fast' is not a number"),
        ("lr0: .nan\n", "lr0: nan is not a number"),
        ("lr0:\n", "lr0: None is not a number"),
        ("lr0: true\n", "lr0: True is not a number"),
        ("lr0: -0.1\n", "lr0: -0.1 is out of range; allowed is at least 0"),
        ("mosaic: 1.5\n", "mosaic: 1.5 is out of range; allowed is from 0 to 1"),
        ("temperature_end: 0.5\n", "temperature_end: 0.5 is out of range"),
        ("temperature_start: 2\ntemperature_end: 3\n", "can only fall"),
        ("warmup_v61: 1\n", "warmup_v61: 1 is not true or false"),
        ("- lr0\n", "found list"),
        ("", "found nothing"),
    ],
)
def test_an_impossible_value_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hyp.load(write(tmp_path, text))


def test_plain_values_make_the_same_record_again() -> None:
    hyp = Hyp(lr0=0.5, anchors=3.0, warmup_v61=True)
    assert Hyp.from_dict(hyp.to_dict()) == hyp


def test_a_missing_file_lists_the_places_tried() -> None:
    with pytest.raises(FileNotFoundError, match=r"data/hyps/nothing\.yaml"):
        Hyp.load("nothing.yaml")
