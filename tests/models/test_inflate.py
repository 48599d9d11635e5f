"""A dynamic model that starts as the static one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.common import Dynamic_conv2d
from models.dynamic import DynamicConv, set_temperature
from models.dynamic_variants import CondConv2d, ODConv2d
from models.inflate import calibrate_routing, inflate
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
def test_a_plain_convolution_with_bias_is_equal_for_every_image(kind: Any, groups: int) -> None:
    torch.manual_seed(0)
    static = nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=groups)
    dynamic = kind(8, 6, 3, stride=2, padding=1, groups=groups, K=4)
    found = list(inflate(nn.ModuleDict({"a": dynamic}), {f"a.{k}": v for k, v in static.state_dict().items()}))
    assert [(one.layer, one.lost_activation) for one in found] == [("a", False)]
    images = torch.randn(3, 8, 9, 11)
    torch.testing.assert_close(dynamic(images), static(images), rtol=1e-5, atol=2e-6)


def test_with_a_spread_the_kernels_differ_and_their_mean_is_the_static_one() -> None:
    static, dynamic = nn.Conv2d(4, 5, 3, bias=False), Dynamic_conv2d(4, 5, 3, bias=False, K=3)
    source = {"a.weight": static.weight}
    list(inflate(nn.ModuleDict({"a": dynamic}), source, seed=1, spread=0.5))
    assert not dynamic.attention.fc2.weight.any()
    torch.testing.assert_close(dynamic.weight.mean(0), static.weight)
    apart = (dynamic.weight - static.weight).std() / static.weight.std()
    assert 0.3 < apart < 0.6
    again = Dynamic_conv2d(4, 5, 3, bias=False, K=3)
    list(inflate(nn.ModuleDict({"a": again}), source, seed=1, spread=0.5))
    assert torch.equal(again.weight, dynamic.weight)


@pytest.mark.parametrize("layer", [Dynamic_conv2d(32, 5, 3), ODConv2d(32, 5, 3), Dynamic_conv2d(32, 5, 3, norm=True)])
def test_the_first_step_gives_equal_kernels_different_gradients(layer: Dynamic_conv2d) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(layer)
    list(inflate(model, {"0.weight": torch.randn(5, 32, 3, 3)}))
    calibrate_routing(model, [torch.rand(8, 32, 8, 8)])
    set_temperature(model, 1)
    (layer(torch.rand(2, 32, 8, 8)) * torch.randn(2, 5, 6, 6)).sum().backward()
    assert torch.equal(layer.weight[0], layer.weight[1])
    assert (layer.weight.grad - layer.weight.grad.mean(0)).std() > 0.2 * layer.weight.grad.std()


def test_behind_a_sigmoid_routing_the_kernels_differ_and_the_first_step_moves_the_routing() -> None:
    torch.manual_seed(0)
    layer = CondConv2d(32, 5, 3)
    list(inflate(nn.ModuleDict({"a": layer}), {"a.weight": torch.randn(5, 32, 3, 3)}))
    (layer(torch.rand(2, 32, 8, 8)) * torch.randn(2, 5, 6, 6)).sum().backward()
    assert max(float(p.grad.abs().max()) for p in layer.routing.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("width", [3, 4, 32])
@pytest.mark.parametrize("norm", [False, True])
def test_calibrated_logits_have_mean_0_and_deviation_2_over_the_images(width: int, norm: bool) -> None:
    torch.manual_seed(0)
    layer = Dynamic_conv2d(width, 5, 3, norm=norm, ratio=0.5)
    images = [torch.rand(16, width, 1, 1).expand(-1, -1, 6, 6) ** 2 for _ in range(4)]
    assert calibrate_routing(layer, images) == 1
    hidden = layer.train().attention.hidden(torch.cat(images)[:, :, :1, :1])
    logits = layer.attention.fc2(hidden).flatten(1)
    torch.testing.assert_close(logits.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(logits.std(0), torch.full((4,), 2.0), rtol=1e-3, atol=0)
    entropy = torch.special.entr(torch.softmax(logits, 1)).sum(1).mean() / torch.log(torch.tensor(4.0))
    assert 0.3 < entropy < 0.9


def test_calibration_is_reproducible_and_leaves_the_norms_of_the_model_alone() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        model = Model("yolov5n_dynamic_head.yaml", nc=2)
        assert calibrate_routing(model, [torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))]) == 2
        models.append(model)
    for one, other in zip(models[0].state_dict().values(), models[1].state_dict().values()):
        assert torch.equal(one, other)
    assert not models[0].model[0].bn.running_mean.any()


def test_only_the_named_layers_are_calibrated_and_a_deviation_of_0_is_the_uniform_routing() -> None:
    model = nn.ModuleDict({"a": Dynamic_conv2d(8, 8, 1), "ab": Dynamic_conv2d(8, 8, 1)})
    assert calibrate_routing(model, [], 0.0, ["a"]) == 1
    assert not model["a"].attention.fc2.weight.any() and model["ab"].attention.fc2.weight.any()


def test_images_that_are_all_alike_leave_finite_logits() -> None:
    layer = Dynamic_conv2d(8, 8, 1)
    calibrate_routing(layer, [torch.ones(4, 8, 2, 2)])
    assert layer(torch.rand(2, 8, 2, 2)).isfinite().all()


def test_a_single_hidden_unit_is_scaled_but_not_centred() -> None:
    torch.manual_seed(0)
    layer = Dynamic_conv2d(4, 8, 1, ratio=0.25)
    calibrate_routing(layer, [torch.rand(32, 4, 2, 2)])
    assert layer.attention.fc2.weight.abs().max() > 0.5


def test_a_residual_layer_takes_the_static_kernel_as_its_static_part() -> None:
    static, dynamic = nn.Conv2d(4, 5, 3), Dynamic_conv2d(4, 5, 3, residual=True)
    list(inflate(nn.ModuleDict({"a": dynamic}), {f"a.{k}": v for k, v in static.state_dict().items()}))
    assert torch.equal(dynamic.static_weight, static.weight) and not dynamic.weight.any()
    images = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(dynamic(images), static(images), rtol=1e-5, atol=2e-6)


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
    calibrate_routing(dynamic, [torch.cat([image, image.flip(1) / 2])])
    for temperature in (34.0, 1.0):
        set_temperature(dynamic.eval(), temperature)
        with torch.no_grad():
            expected, got = static(image)[0], dynamic(image)[0]
        torch.testing.assert_close(got[..., :4], expected[..., :4], rtol=1e-4, atol=5e-3)  # pixels
        torch.testing.assert_close(got[..., 4:], expected[..., 4:], rtol=0, atol=5e-5)
