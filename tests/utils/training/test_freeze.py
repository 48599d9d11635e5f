"""Which parameters ``--freeze`` means."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from models.summary import log_layer_table, summarize
from models.yolo import Model
from utils.core.errors import InputError
from utils.training.freeze import FrozenLayers, layers_to_freeze


@pytest.fixture
def model() -> Model:
    return Model("yolov5n_dynamic.yaml", nc=2)


def frozen(model: Model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def of_layers(model: Model, numbers: Sequence[int]) -> set[str]:
    return {name for name, _ in model.named_parameters() if int(name.split(".")[1]) in numbers}


@pytest.mark.parametrize(
    ("freeze", "numbers"),
    [
        ((0,), []),
        ((3,), [0, 1, 2]),
        ((0, 1, 2), [0, 1, 2]),
        (("2-4",), [2, 3, 4]),
        ((0, "2-4"), [0, 2, 3, 4]),
        (("model.24",), []),
    ],
)
def test_numbers_and_ranges_are_layers(freeze: Sequence[int | str], numbers: list[int]) -> None:
    assert layers_to_freeze(freeze) == numbers


@pytest.mark.parametrize(
    ("freeze", "numbers"), [((10,), range(10)), (("0-9",), range(10)), (("model.2", 4), [2, 4]), (("model.24",), [24])]
)
def test_layers_are_frozen_with_all_their_parameters(
    model: Model, freeze: Sequence[int | str], numbers: Sequence[int]
) -> None:
    FrozenLayers(model, freeze)
    assert frozen(model) == of_layers(model, numbers)


@pytest.mark.parametrize("part", ["attention", "cv1.bn"])
def test_a_part_of_a_name_freezes_the_parameters_that_have_it(model: Model, part: str) -> None:
    FrozenLayers(model, (part,))
    assert frozen(model) == {name for name, _ in model.named_parameters() if part in name} != set()


def test_a_module_inside_a_layer_can_be_named(model: Model) -> None:
    FrozenLayers(model, ("model.2.cv1",))
    assert frozen(model) == {f"model.2.cv1.{name}" for name in ("conv.weight", "bn.weight", "bn.bias")}


@pytest.mark.parametrize("freeze", [("0-9",), ("bn",)])
def test_statistics_of_frozen_norms_stand_still_and_no_others(model: Model, freeze: Sequence[str]) -> None:
    layers = FrozenLayers(model, freeze)
    model.train()
    layers.set_evaluation_mode()
    norms = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    still = {name for name, module in norms.items() if not module.training}
    assert still == {name for name in norms if f"{name}.weight" in frozen(model)} != set()


def test_a_frozen_head_still_gives_maps_to_train_on(model: Model) -> None:
    layers = FrozenLayers(model, ("model.24",))
    model.train()
    layers.set_evaluation_mode()
    maps = model(torch.zeros(1, 3, 64, 64))
    assert [level.shape[-1] for level in maps] == [7, 7, 7]


def test_a_table_tells_what_is_trained_in_each_layer(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    FrozenLayers(model, (1, "model.2.cv1"))
    with caplog.at_level(logging.INFO):
        log_layer_table(model)
    rows = [message.split() for message in caplog.messages]
    assert rows[0] == ["from", "parameters", "trained", "module"]
    assert rows[1] == ["0", "-1", "1760", "1760", "Conv"]  # 3*16*6*6 weights and 2*16 of the norm
    assert rows[2] == ["1", "-1", "4672", "0", "Conv"]
    assert rows[3] == ["2", "-1", "4800", str(4800 - 32 * 16 - 2 * 16), "C3"]
    assert sum(int(row[-2]) for row in rows[1:]) == summarize(model).trainable


def test_without_frozen_layers_the_table_has_no_such_column(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    FrozenLayers(model, (0,))
    with caplog.at_level(logging.INFO):
        log_layer_table(model)
    assert "trained" not in caplog.text


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ((26,), "there is no layer 25; the model's layers are 0 to 24"),
        (("9-2",), "--freeze 9-2: a range is written from the lower to the higher number"),
        (("20-30",), "there is no layer 25"),
        (("backbone",), "--freeze backbone: no module has this name"),
        ((25,), "nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(model: Model, freeze: Sequence[int | str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrozenLayers(model, freeze)
