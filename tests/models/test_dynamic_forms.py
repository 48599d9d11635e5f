"""Every way to compute a dynamic layer gives the same numbers, and those for export have what other programs need."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.common import Dynamic_conv2d
from models.dynamic import use_form
from models.dynamic_convolution import DynamicForm
from models.dynamic_variants import CondConv2d, ODConv2d
from models.yolo import Model

KINDS = (Dynamic_conv2d, CondConv2d, ODConv2d)
SHAPES: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2, "groups": 4, "bias": False},
]


def make(kind: type[Dynamic_conv2d], shape: dict[str, Any]) -> Dynamic_conv2d:
    torch.manual_seed(0)
    layer = kind(8, 12, K=3, **shape).eval()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", DynamicForm)
@torch.no_grad()
def test_all_forms_agree(kind: type[Dynamic_conv2d], shape: dict[str, Any], form: DynamicForm) -> None:
    layer = make(kind, shape)
    x = torch.randn(1 if form is DynamicForm.SINGLE else 3, 8, 9, 7)
    expected = layer(x)
    layer.use_form(form)
    torch.testing.assert_close(layer(x), expected, atol=2e-5, rtol=1e-5)
    assert layer(x[:0]).shape[1:] == expected.shape[1:]


@torch.no_grad()
def test_a_merged_kernel_is_all_kernels_side_by_side_and_the_input_is_weighted() -> None:
    layer = CondConv2d(1, 1, 1, K=2, bias=False)
    layer.weight.copy_(torch.tensor([3.0, 5.0]).view(2, 1, 1, 1, 1))
    layer.use_form(DynamicForm.MERGED)
    assert layer.constants["merged"].flatten().tolist() == [3, 5]
    x = torch.full((1, 1, 1, 1), 2.0)
    first, second = layer.attention(x)[0].tolist()
    assert layer(x).item() == pytest.approx(2 * (3 * first + 5 * second))


def test_matrix_products_become_patches_where_the_kernel_looks_around() -> None:
    model = nn.Sequential(Dynamic_conv2d(4, 4, 1), Dynamic_conv2d(4, 4, 3, padding=1))
    assert list(use_form(model, DynamicForm.MATMUL).values()) == [DynamicForm.MATMUL, DynamicForm.PATCHES]
    assert list(use_form(model, DynamicForm.PATCHES).values()) == [DynamicForm.PATCHES, DynamicForm.PATCHES]
    assert use_form(nn.Conv2d(3, 3, 1), DynamicForm.MATMUL) == {}


def test_the_constants_of_a_form_are_no_part_of_a_checkpoint() -> None:
    layer = Dynamic_conv2d(4, 4, 3)
    before = list(layer.state_dict())
    layer.use_form(DynamicForm.MERGED)
    assert list(layer.state_dict()) == before
    assert next(iter(layer.half().constants.values())).dtype == torch.float16


@torch.no_grad()
def test_a_whole_model_computes_the_same_in_every_form() -> None:
    torch.manual_seed(0)
    model, x = Model("yolov5n_dynamic_all.yaml").eval(), torch.rand(2, 3, 64, 32)
    expected = model(x)[0]
    for form in (DynamicForm.GROUPED, DynamicForm.MATMUL, DynamicForm.MERGED):
        use_form(model, form)
        torch.testing.assert_close(model(x)[0], expected, rtol=1e-4, atol=1e-3)
