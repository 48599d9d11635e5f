"""Parameter groups and optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.common import Dynamic_conv2d
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.training.optim import GROUPS, build_optimizer, parameter_groups


class Attention(nn.Module):
    no_weight_decay = True

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(2, 2, 1, bias=False)


class Mixed(nn.Module):
    """One of every kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.layer_norm = nn.LayerNorm((2, 2))
        self.heads = nn.MultiheadAttention(4, 2)
        self.attention = Attention()
        self.scale = nn.Parameter(torch.ones(3, 3))
        self.tied = self.conv

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.attention.fc1(x)


def test_each_kind_of_parameter_is_in_its_group() -> None:
    groups = {name: set(members) for name, members in parameter_groups(Mixed()).items()}
    assert groups["decay"] == {"conv.weight", "heads.in_proj_weight", "heads.out_proj.weight"}
    assert groups["bias"] == {
        "conv.bias", "norm.bias", "layer_norm.bias", "heads.in_proj_bias", "heads.out_proj.bias",
    }  # fmt: skip
    assert groups["no_decay"] == {"norm.weight", "layer_norm.weight", "attention.fc1.weight", "scale"}


def test_attention_can_be_decayed() -> None:
    assert "attention.fc1.weight" in parameter_groups(Mixed(), attention_decay=True)["decay"]


def test_groups_partition_the_parameters_frozen_ones_included() -> None:
    model = Mixed()
    model.conv.requires_grad_(False)
    optimizer = build_optimizer(model, "SGD", Hyp())
    members = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())


def test_groups_carry_their_name_and_the_names_of_their_parameters() -> None:
    model = Mixed()
    named = dict(model.named_parameters())
    optimizer = build_optimizer(model, "SGD", Hyp())
    assert tuple(group["name"] for group in optimizer.param_groups) == GROUPS
    for group in optimizer.param_groups:
        assert [id(named[name]) for name in group["param_names"]] == [id(parameter) for parameter in group["params"]]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_only_the_decay_group_decays(name: str) -> None:
    optimizer = build_optimizer(Mixed(), name, Hyp(lr0=0.1, momentum=0.8, weight_decay=0.5), decay_factor=0.5)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "no_decay": 0, "decay": 0.25, "bias": 0,
    }  # fmt: skip
    assert type(optimizer).__name__ == name
    for group in optimizer.param_groups:
        assert group["lr"] == 0.1
        assert (group["momentum"] if name == "SGD" else group["betas"][0]) == 0.8


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_step_moves_the_weights_and_the_state_can_be_loaded(name: str) -> None:
    torch.manual_seed(0)
    model = Mixed()
    optimizer = build_optimizer(model, name, Hyp())
    before = model.conv.weight.detach().clone()
    model(torch.randn(2, 2, 3, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.conv.weight)
    build_optimizer(Mixed(), name, Hyp()).load_state_dict(optimizer.state_dict())


def test_a_model_without_norms_or_biases_has_empty_groups() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2, bias=False), "SGD", Hyp())
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 1, 0]


def test_sgd_without_momentum_is_possible() -> None:
    assert build_optimizer(Mixed(), "SGD", Hyp(momentum=0.0)).param_groups[0]["nesterov"] is False


def test_an_unknown_optimizer_is_named_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="SGD, Adam, AdamW; did you mean 'Adam'"):
        build_optimizer(Mixed(), "Adams", Hyp())


def test_the_bank_of_a_dynamic_convolution_decays_and_its_attention_does_not() -> None:
    common = pytest.importorskip("models.common")
    groups = {k: set(v) for k, v in parameter_groups(common.Dynamic_conv2d(4, 8, 3)).items()}
    assert groups["decay"] == {"weight"}
    assert groups["bias"] == {"bias"}
    assert groups["no_decay"] == {"attention.fc1.weight", "attention.fc2.weight"}


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s"])
def test_group_sizes_are_those_of_the_reference(golden: Any, name: str) -> None:
    model = pytest.importorskip("models.yolo").Model(f"{name}.yaml")
    expected = golden.json("tensors")["optimizer_groups"][name]
    sizes = {group: len(members) for group, members in parameter_groups(model).items()}
    assert sizes == {
        "no_decay": expected["weight_no_decay_batchnorm"],
        "decay": expected["weight_decay"],
        "bias": expected["bias"],
    }


def test_kernels_and_attention_of_dynamic_layers_have_rates_of_their_own_and_decay_as_before() -> None:
    model = nn.Sequential(Dynamic_conv2d(4, 8, 3, norm=True, residual=True), nn.Conv2d(8, 2, 1))
    optimizer = build_optimizer(model, "SGD", Hyp(lr0=0.1, weight_decay=0.2, kernel_lr=4.0, attention_lr=0.5))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: sorted(group["param_names"]) for name, group in groups.items()} == {
        "no_decay": [],
        "decay": ["0.static_weight", "1.weight"],
        "bias": ["1.bias"],
        "no_decay x0.5": ["0.attention.bn.weight", "0.attention.fc1.weight", "0.attention.fc2.weight"],
        "bias x0.5": ["0.attention.bn.bias"],
        "decay x4": ["0.weight"],
        "bias x4": ["0.bias"],
    }
    assert {name: group["lr_factor"] for name, group in groups.items() if group["lr_factor"] != 1} == {
        "no_decay x0.5": 0.5, "bias x0.5": 0.5, "decay x4": 4, "bias x4": 4,
    }  # fmt: skip
    assert groups["decay x4"]["weight_decay"] * 4 == groups["decay"]["weight_decay"] == 0.2


def test_a_rate_factor_of_one_makes_no_groups() -> None:
    assert len(build_optimizer(Dynamic_conv2d(4, 8, 3), "SGD", Hyp()).param_groups) == 3
