"""Activation functions, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from utils.compat.activations import AconC, FReLU, Hardswish, MetaAconC, Mish, SiLU


@pytest.mark.parametrize(
    ("layer", "at_one"),
    [
        (SiLU(), 1 / (1 + math.exp(-1))),
        (Hardswish(), 4 / 6),
        (Mish(), math.tanh(math.log(1 + math.e))),
    ],
)
def test_values_at_one(layer: nn.Module, at_one: float) -> None:
    assert layer(torch.ones(1)).item() == pytest.approx(at_one, rel=1e-6)


def test_frelu_is_the_larger_of_a_value_and_its_condition() -> None:
    layer = FReLU(1).eval()
    layer.conv.weight.data.zero_()
    layer.bn.bias.data.fill_(-0.5)  # the condition is -0.5 everywhere
    x = torch.tensor([-2.0, -0.25, 3.0, -1.0]).view(1, 1, 2, 2)
    assert layer(x).flatten().tolist() == [-0.5, -0.25, 3.0, -0.5]


def test_acon_with_p_one_and_zero_is_swish() -> None:
    layer = AconC(2)
    layer.p1.data.fill_(1)
    layer.p2.data.zero_()
    layer.beta.data.copy_(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
    y = layer(torch.ones(1, 2, 1, 1)).flatten().tolist()
    assert y == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))])


def test_acon_with_beta_zero_is_the_mean_of_both_slopes() -> None:
    layer = AconC(1)
    layer.p1.data.fill_(3)
    layer.p2.data.fill_(1)
    layer.beta.data.zero_()
    assert layer(torch.full((1, 1, 1, 1), 5.0)).item() == pytest.approx(10)


def test_meta_acon_has_its_own_beta_for_each_image() -> None:
    layer = MetaAconC(1, r=1)
    with torch.no_grad():
        layer.p1.fill_(1)
        layer.p2.zero_()
        for fc in (layer.fc1, layer.fc2):
            fc.weight.fill_(1)
            fc.bias.zero_()
        y = layer(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)).flatten()
    beta = 1 / (1 + math.exp(-2))
    assert y.tolist() == pytest.approx([0, 2 / (1 + math.exp(-2 * beta))])


@pytest.mark.parametrize("layer", [FReLU(32), AconC(32), MetaAconC(32)])
def test_shapes_stay_and_every_parameter_learns(layer: nn.Module) -> None:
    x = torch.randn(1, 32, 5, 7)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert all(parameter.grad is not None for parameter in layer.parameters())
