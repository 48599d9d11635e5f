"""Slices of the options of train.py."""

from __future__ import annotations

from dataclasses import fields

import pytest

from utils.config import train_slices
from utils.config.options import TrainOptions
from utils.config.train_slices import LoopOptions, OptionSlice, SaveOptions

SLICES = OptionSlice.__subclasses__()


@pytest.mark.parametrize("kind", SLICES, ids=lambda kind: kind.__name__)
def test_the_fields_of_a_slice_are_options_of_the_same_type(kind: type[OptionSlice]) -> None:
    types = {field.name: field.type for field in fields(TrainOptions)}
    assert fields(kind)
    assert {field.name: field.type for field in fields(kind)}.items() <= types.items()


def test_every_slice_of_the_module_is_checked() -> None:
    named = {name for name in vars(train_slices) if name.endswith("Options")} - {"TrainOptions"}
    assert {kind.__name__ for kind in SLICES} == named


def test_a_slice_has_the_values_of_the_options() -> None:
    options = TrainOptions(epochs=7, save_steps=3, evolve=None)
    assert (LoopOptions.of(options).epochs, LoopOptions.of(options).patience) == (7, 100)
    assert SaveOptions.of(options) == SaveOptions(nosave=False, save_period=-1, save_steps=3, evolve=None)
