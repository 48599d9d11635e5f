"""Channels last: the same numbers, laid out otherwise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from models.common import Dynamic_conv2d
from models.memory_format import (
    fastest_memory_format,
    is_channels_last,
    prepare_for_inference,
    set_memory_format,
)
from models.yolo import Model

LAST = torch.channels_last


def test_a_cpu_trains_channels_last_and_other_devices_as_written() -> None:
    assert fastest_memory_format(torch.device("cpu")) is LAST
    assert fastest_memory_format(torch.device("cuda")) is torch.contiguous_format


def test_only_kernels_of_four_dimensions_are_laid_out_and_stay_the_same_parameters() -> None:
    model = Model("yolov5n_dynamic.yaml", nc=2)
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    set_memory_format(model, LAST)
    for name, p in model.named_parameters():
        assert p is before[name][0]
        assert torch.equal(p, before[name][1])
        assert p.is_contiguous(memory_format=LAST) if p.dim() == 4 else p.is_contiguous()


@pytest.mark.parametrize(
    ("shape", "last"), [((2, 3, 4, 4), True), ((2, 1, 4, 4), False), ((2, 3, 1, 1), False), ((1, 3, 2, 1), True)]
)
def test_channels_last_is_told_only_where_it_makes_a_difference(shape: tuple[int, ...], last: bool) -> None:
    assert is_channels_last(torch.zeros(shape).contiguous(memory_format=LAST)) is last
    assert not is_channels_last(torch.zeros(shape))


def gradients(model: Model, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    maps = model(x)
    torch.stack([level.square().mean() for level in maps]).sum().backward()
    return maps, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n_dynamic.yaml", "yolov5n_dynamic_all.yaml"])
def test_maps_and_gradients_are_the_same_in_both_layouts(cfg: str) -> None:
    torch.manual_seed(0)
    model, x = Model(cfg, nc=2).double().train(), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    other = copy.deepcopy(model)
    set_memory_format(other, LAST)
    expected, found = gradients(model, x), gradients(other, x.contiguous(memory_format=LAST))
    for a, b in zip(expected[0], found[0]):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-6, atol=1e-9, msg=name)


def test_a_pointwise_dynamic_layer_keeps_channels_last_in_and_out() -> None:
    torch.manual_seed(0)
    layer = Dynamic_conv2d(6, 5, 1, ratio=1)
    x = torch.rand(3, 6, 4, 7)
    y = layer(x.contiguous(memory_format=LAST))
    assert y.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(y, layer(x), rtol=1e-5, atol=1e-6)
    assert layer(x).is_contiguous()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_inference_is_channels_last_on_a_cpu_only(device: str) -> None:
    model = torch.nn.Conv2d(3, 8, 3)
    wanted = LAST if device == "cpu" else torch.contiguous_format
    assert prepare_for_inference(model, torch.device(device)) is wanted
    assert model.weight.is_contiguous(memory_format=wanted)


def test_an_exported_file_stays_as_it_is_and_takes_contiguous_images() -> None:
    model = torch.nn.Conv2d(3, 8, 3)
    model.contiguous_images = True  # type: ignore[assignment]
    assert prepare_for_inference(model, torch.device("cpu")) is torch.contiguous_format
    assert model.weight.is_contiguous()
