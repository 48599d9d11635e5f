"""A dynamic model that starts as the static one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.common import Dynamic_conv2d
from models.dynamic import DynamicConv, set_temperature
from models.families import CondConv2d, ODConv2d
from models.inflate import inflate
from models.yolo import Model
from utils.checkpoint import load_checkpoint, load_model, transfer

STATIC_TWINS = [
    "yolov5n_dynamic_head.yaml",
    "yolov5n_dynamic_neck.yaml",
    "yolov5n_dynamic_backbone.yaml",
    "yolov5n_dynamic_all.yaml",
    "yolov5n_condconv_head.yaml",
    "yolov5n_odconv_head.yaml",
]


@pytest.mark.parametrize("kind", [Dynamic_conv2d, CondConv2d, ODConv2d])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_plain_convolution_with_bias_is_equal_for_every_picture(kind: Any, groups: int) -> None:
    torch.manual_seed(0)
    static = nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=groups)
    dynamic = kind(8, 6, 3, stride=2, padding=1, groups=groups, K=4)
    found = list(inflate(nn.ModuleDict({"a": dynamic}), {f"a.{k}": v for k, v in static.state_dict().items()}))
    assert [(one.layer, one.lost_activation) for one in found] == [("a", False)]
    pictures = torch.randn(3, 8, 9, 11)
    torch.testing.assert_close(dynamic(pictures), static(pictures), rtol=1e-5, atol=2e-6)


def test_the_kernels_differ_and_their_mean_is_the_static_one() -> None:
    static, dynamic = nn.Conv2d(4, 5, 3, bias=False), Dynamic_conv2d(4, 5, 3, bias=False, K=3)
    source = {"a.weight": static.weight}
    list(inflate(nn.ModuleDict({"a": dynamic}), source, seed=1))
    torch.testing.assert_close(dynamic.weight.mean(0), static.weight)
    apart = (dynamic.weight - static.weight).std() / static.weight.std()
    assert 0.3 < apart < 0.6
    again = Dynamic_conv2d(4, 5, 3, bias=False, K=3)
    list(inflate(nn.ModuleDict({"a": again}), source, seed=1))
    assert torch.equal(again.weight, dynamic.weight)


@pytest.mark.parametrize("layer", [Dynamic_conv2d(32, 5, 3), CondConv2d(32, 5, 3), ODConv2d(32, 5, 3)])
def test_the_first_step_already_tells_the_kernels_apart(layer: Dynamic_conv2d) -> None:
    torch.manual_seed(0)
    list(inflate(nn.ModuleDict({"a": layer}), {"a.weight": torch.randn(5, 32, 3, 3)}))
    target = torch.randn(2, 5, 6, 6)
    (layer(torch.rand(2, 32, 8, 8)) * target).sum().backward()
    gradients = [p.grad for p in layer.routing.parameters() if p.grad is not None]
    assert max(float(g.abs().max()) for g in gradients) > 0


def test_a_whole_conv_becomes_a_dynamic_conv2d_with_its_norm_folded_in_and_says_what_is_lost() -> None:
    model, static = Model("yolov5n_dynamic.yaml", nc=3).eval(), Model("yolov5n.yaml", nc=3).eval()
    with torch.no_grad():
        static.model[10].bn.running_mean.uniform_(-1, 1)
        static.model[10].bn.running_var.uniform_(0.5, 2)
    report = transfer(model, static.state_dict())
    assert [(one.layer, one.lost_activation) for one in report.inflated] == [("model.10", True), ("model.14", True)]
    assert not report.absent and not report.other_shape and not report.unused
    x = torch.randn(1, 256, 5, 5)
    conv = static.model[10]
    torch.testing.assert_close(model.model[10](x), conv.bn(conv.conv(x)), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_left_out() -> None:
    model = nn.ModuleDict({"a": DynamicConv(4, 8, 3)})
    assert not list(inflate(model, {"a.conv.weight": torch.randn(8, 4, 1, 1)}))
    assert not list(inflate(model, {"a.conv.weight": torch.randn(8, 4, 3, 3), "a.conv.bias": torch.randn(8)}))


def test_another_number_of_kernels_or_a_dynamic_source_is_no_inflation() -> None:
    source, target = Model("yolov5n_dynamic_head.yaml", nc=3), Model("yolov5n_dynamic_head.yaml", nc=3)
    report = transfer(target, source.state_dict())
    assert not report.inflated
    assert torch.equal(target.model[10].conv.weight, source.model[10].conv.weight)


@pytest.mark.parametrize("name", STATIC_TWINS)
def test_the_official_model_inflated_gives_the_same_boxes_at_any_temperature(
    golden: Any, shared_weights: Path, name: str
) -> None:
    static, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    dynamic = Model(name)
    report = transfer(dynamic, load_checkpoint(shared_weights / "yolov5n-coco-v6.0.pt").weights)
    assert not report.absent and not report.other_shape and not report.unused
    image = torch.from_numpy(golden.array("model/pic_input_u8")).float() / 255
    for temperature in (34.0, 1.0):
        set_temperature(dynamic.eval(), temperature)
        with torch.no_grad():
            expected, got = static(image)[0], dynamic(image)[0]
        torch.testing.assert_close(got[..., :4], expected[..., :4], rtol=1e-4, atol=5e-3)  # pixels
        torch.testing.assert_close(got[..., 4:], expected[..., 4:], rtol=0, atol=5e-5)
