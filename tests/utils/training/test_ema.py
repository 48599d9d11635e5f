"""The average of the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from utils.training.ema import ModelEMA


class Small(nn.Module):
    """A parameter, a buffer of whole numbers, batch norm statistics and a temperature."""

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("temperature", torch.tensor(34.0))


def fill(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def test_the_decay_is_that_of_the_reference(golden: Any) -> None:
    ema = ModelEMA(Small())
    for updates, decay in golden.json("tensors")["ema_decay"].items():
        assert ema.decay_at(int(updates)) == pytest.approx(decay, rel=1e-9)


def test_an_update_moves_parameters_and_statistics_by_one_minus_the_decay() -> None:
    model = Small()
    fill(model, 0)
    ema = ModelEMA(model, decay=0.5, tau=1e-9)  # the decay is at its limit from the start
    fill(model, 8)
    for expected in (4.0, 6.0, 7.0):
        ema.update(model)
        assert ema.model.weight.tolist() == [expected] * 3
        assert ema.model.norm.running_var.tolist() == [expected] * 2
    assert ema.updates == 3


def test_whole_numbers_are_copied() -> None:
    model = Small()
    ema = ModelEMA(model)
    model.norm.num_batches_tracked += 7
    ema.update(model)
    assert int(ema.model.norm.num_batches_tracked) == 7


def test_the_temperature_is_left_alone() -> None:
    model = Small()
    ema = ModelEMA(model)
    model.temperature.fill_(1)
    ema.update(model)
    assert float(ema.model.temperature) == 34


def test_equal_tensors_stay_equal_to_the_last_digit() -> None:
    model = Small()
    nn.init.normal_(model.weight)
    ema = ModelEMA(model)
    for _ in range(50):
        ema.update(model)
    assert torch.equal(ema.model.weight, model.weight)


def test_the_average_is_a_copy_in_evaluation_mode_without_gradients() -> None:
    model = Small().train()
    ema = ModelEMA(model)
    fill(model, 5)
    assert float(ema.model.weight.abs().sum()) == 0
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert model.training
    assert model.weight.requires_grad


def test_a_resumed_count_goes_on() -> None:
    ema = ModelEMA(Small(), updates=1000)
    ema.update(Small())
    assert ema.updates == 1001


def test_the_average_of_a_dynamic_model_takes_its_temperature_from_outside() -> None:
    common = pytest.importorskip("models.common")
    model = nn.Sequential(common.Dynamic_conv2d(4, 8, 3, padding=1))
    ema = ModelEMA(model)
    model[0].attention.set_temperature(4)
    ema.update(model)
    assert float(ema.model[0].attention.temperature) == 34
