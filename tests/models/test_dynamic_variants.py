"""DynamicConv and the other families: against a loop over the images, their rules, and folding of the norm."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.common import Conv, Dynamic_conv2d
from models.dynamic import C3Dynamic, DynamicBottleneck, DynamicConv, attention_layers, get_temperature, set_temperature
from models.dynamic_variants import C3SE, CondConv, CondConv2d, ODConv, ODConv2d, SEConv
from models.fuse import fold_into_kernels, fuse
from models.yolo import Model
from utils.core.errors import InputError

SHAPES: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2, "groups": 4, "bias": False},
]


def conv_of(layer: Dynamic_conv2d, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def bias_of(layer: Dynamic_conv2d, pi: torch.Tensor) -> Any:
    return 0 if layer.bias is None else (pi @ layer.bias)[None, :, None, None]


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_condconv_is_a_convolution_with_the_experts_weighted_by_sigmoids(shape: dict[str, Any], batch: int) -> None:
    torch.manual_seed(0)
    layer, x = CondConv2d(8, 12, K=3, **shape), torch.randn(batch, 8, 7, 6)
    y = layer(x)
    assert y.shape[0] == batch
    for one, got in zip(x, y):
        pi = torch.sigmoid(layer.attention.fc(one.mean((1, 2))))
        kernel = sum(p * w for p, w in zip(pi, layer.weight))
        expected = conv_of(layer, one[None], kernel) + bias_of(layer, pi)
        torch.testing.assert_close(got[None], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_odconv_weights_inputs_outputs_places_and_kernels(shape: dict[str, Any], batch: int) -> None:
    torch.manual_seed(0)
    layer, x = ODConv2d(8, 12, K=3, temperature=2, **shape), torch.randn(batch, 8, 7, 6)
    y = layer(x)
    assert y.shape[0] == batch
    a = layer.attention
    for one, got in zip(x, y):
        z = F.relu(a.squeeze(one.mean((1, 2))[None, :, None, None]))
        channel, out = (torch.sigmoid(head(z))[0, :, 0, 0] for head in (a.channel, a.filter))
        pi = torch.softmax(a.kernel.fc(z).flatten() / 2, 0)
        kernel = sum(p * w for p, w in zip(pi, layer.weight))
        if a.spatial is not None:
            kernel = kernel * torch.sigmoid(a.spatial(z)).view(1, 1, 3, 3)
        expected = conv_of(layer, one[None] * channel[None, :, None, None], kernel) * out[None, :, None, None]
        torch.testing.assert_close(got[None], expected + bias_of(layer, pi), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", [DynamicConv, CondConv, ODConv])
def test_the_first_seven_arguments_are_those_of_conv(kind: Any) -> None:
    static, dynamic = Conv(6, 8, 3, 2, 1, 2, False), kind(6, 8, 3, 2, 1, 2, False)
    x = torch.rand(2, 6, 9, 9)
    assert dynamic(x).shape == static(x).shape
    assert isinstance(dynamic.act, nn.Identity) and isinstance(dynamic.bn, nn.BatchNorm2d)
    assert dynamic.conv.groups == 2 and dynamic.conv.bias is None


@pytest.mark.parametrize("kind", [DynamicConv, ODConv])
def test_a_norm_folds_exactly_behind_softmax_routing(kind: Any) -> None:
    torch.manual_seed(0)
    layer = kind(8, 8, 3).eval()
    layer.bn.running_mean.uniform_(-1, 1)
    layer.bn.running_var.uniform_(0.5, 2)
    nn.init.uniform_(layer.bn.weight, -2, 2)
    nn.init.uniform_(layer.bn.bias, -1, 1)
    set_temperature(layer, 1)
    x = torch.randn(3, 8, 6, 6)
    fused = fuse(copy.deepcopy(layer))
    assert not hasattr(fused, "bn")
    torch.testing.assert_close(fused(x), layer(x), rtol=1e-5, atol=1e-5)


def test_a_norm_is_not_folded_behind_sigmoid_routing() -> None:
    layer = CondConv(8, 8).eval()
    with pytest.raises(ValueError, match="cannot be folded behind SigmoidRouting: its weights do not sum to one"):
        fold_into_kernels(layer.conv, layer.bn)
    x = torch.randn(2, 8, 4, 4)
    expected = layer(x)
    assert torch.equal(fuse(layer)(x), expected) and hasattr(layer, "bn")


def test_only_softmax_routings_have_a_temperature() -> None:
    assert get_temperature(CondConv(4, 4)) is None
    assert set_temperature(nn.Sequential(CondConv(4, 4), ODConv(4, 4), DynamicConv(4, 4)), 7) == 2
    assert get_temperature(ODConv(4, 4)) == 34


def test_every_routing_gives_the_weights_of_the_kernels() -> None:
    for layer in (DynamicConv(8, 8, K=5), CondConv(8, 8, K=5)):
        ((_, routing),) = attention_layers(layer)
        assert routing(torch.rand(3, 8, 2, 2)).shape == (3, 5)
    names = [name for name, _ in attention_layers(C3Dynamic(16, 16, 3))]
    assert names == [f"m.{i}.cv2.conv.attention" for i in range(3)]


def test_the_dynamic_bottleneck_is_the_static_one_but_for_its_3x3() -> None:
    layer = DynamicBottleneck(8, 8)
    assert isinstance(layer.cv1, Conv) and isinstance(layer.cv2, DynamicConv) and layer.add
    assert layer.cv2.conv.kernel_size == 3


@pytest.mark.parametrize("kernels", [2, 4, 8])
def test_the_number_of_kernels_is_a_keyword_at_the_end_of_a_row(kernels: int) -> None:
    row = [-1, 1, "DynamicConv", [32, 3, 2, {"K": kernels, "ratio": 0.5}]]
    detect = [[0], 1, "Detect", ["nc", "anchors"]]
    content = {"nc": 2, "anchors": [[10, 13]], "backbone": [row], "head": [detect]}
    layer = Model(content).model[0]
    assert layer.conv.weight.shape == (kernels, 32, 3, 3, 3)
    repeated = Model({**content, "backbone": [[-1, 2, "C3Dynamic", [32, {"K": kernels}]]]}).model[0]
    assert [one.cv2.conv.K for one in repeated.m] == [kernels, kernels]


def test_later_copies_of_a_repeated_layer_start_from_its_own_output() -> None:
    content = {
        "nc": 2,
        "anchors": [[10, 13]],
        "backbone": [[-1, 3, "Conv", [16, 3, 1]], [-1, 2, "nn.MaxPool2d", [2, 2, 0]]],
        "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
    }
    model = Model(content)
    assert [one.conv.in_channels for one in model.model[0]] == [3, 16, 16]
    assert model.stride.tolist() == [4]


def disturb(layer: nn.Module) -> None:
    """Give every norm, gate and dynamic kernel values that a mistake in folding would show."""
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.uniform_(module.bias, -1, 1)
    for parameter in layer.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)


@pytest.mark.parametrize("kind", [DynamicConv, ODConv])
@pytest.mark.parametrize("options", [{"norm": True}, {"residual": True}, {"norm": True, "residual": True}])
def test_a_norm_in_the_attention_and_a_static_part_fuse_exactly(kind: Any, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    layer = kind(8, 8, 3, **options).eval()
    disturb(layer)
    set_temperature(layer, 1)
    x = torch.randn(3, 8, 6, 6)
    fused = fuse(copy.deepcopy(layer))
    assert not hasattr(fused, "bn") and fused.conv.static_weight is None
    torch.testing.assert_close(fused(x), layer(x), rtol=1e-4, atol=2e-5)


def test_a_residual_layer_is_the_static_kernel_plus_the_mixed_ones() -> None:
    torch.manual_seed(0)
    layer = Dynamic_conv2d(4, 6, 3, padding=1, residual=True, temperature=1)
    nn.init.normal_(layer.weight)
    x = torch.randn(2, 4, 5, 5)
    pi = layer.attention(x)
    for one, weights, got in zip(x, pi, layer(x)):
        kernel = layer.static_weight + sum(p * w for p, w in zip(weights, layer.weight))
        torch.testing.assert_close(got[None], conv_of(layer, one[None], kernel), rtol=1e-4, atol=2e-5)


def test_the_norm_of_the_attention_normalises_over_the_images_and_takes_a_single_one_in_training() -> None:
    torch.manual_seed(0)
    layer = DynamicConv(8, 8, norm=True, ratio=0.5).train()
    hidden = layer.conv.attention.bn(layer.conv.attention.fc1(torch.randn(16, 8, 1, 1) * 9 + 5))
    torch.testing.assert_close(hidden.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    layer(torch.rand(1, 8, 4, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("options", [{"norm": True}, {"residual": True}])
def test_every_parameter_of_the_variants_learns_within_two_steps(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    layer = DynamicConv(8, 8, 3, temperature=1, **options)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = [p.detach().clone() for p in layer.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        (layer(torch.rand(4, 8, 6, 6)) * torch.randn(4, 8, 6, 6)).sum().backward()
        optimizer.step()
    assert not [n for (n, p), b in zip(layer.named_parameters(), before) if torch.equal(p, b)]


def test_an_se_conv_starts_as_the_conv_in_its_place_and_then_scales_each_image() -> None:
    torch.manual_seed(0)
    static, gated = Conv(8, 6, 3).eval(), SEConv(8, 6, 3).eval()
    gated.load_state_dict(static.state_dict(), strict=False)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(gated(x), static(x))
    disturb(gated)
    gate = gated.gate
    pooled = x.mean((2, 3))
    hidden = torch.relu(pooled @ gate.fc1.weight.flatten(1).T + gate.fc1.bias)
    factor = 2 * torch.sigmoid(hidden @ gate.fc2.weight.flatten(1).T + gate.fc2.bias)
    expected = F.silu(gated.bn(gated.conv(x)) * factor[:, :, None, None])
    torch.testing.assert_close(gated(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fuse(copy.deepcopy(gated))(x), expected, rtol=1e-4, atol=1e-5)


def test_the_variants_are_named_in_a_yaml() -> None:
    rows = [
        [-1, 1, "DynamicConv", [16, 3, 2, {"norm": True}]],
        [-1, 1, "C3Dynamic", [16, {"residual": True, "norm": True}]],
        [-1, 1, "SEConv", [16, 3, 2, {"ratio": 0.5}]],
        [-1, 2, "C3SE", [16]],
    ]
    content = {"nc": 2, "anchors": [[10, 13]], "backbone": rows, "head": [[[3], 1, "Detect", ["nc", "anchors"]]]}
    model = Model(content)
    assert model.model[1].m[0].cv2.conv.static_weight is not None
    assert isinstance(model.model[3], C3SE) and isinstance(model.model[3].m[1].cv2, SEConv)
    assert model.eval()(torch.rand(1, 3, 32, 32))[0].isfinite().all()
    with pytest.raises(InputError, match="unexpected keyword argument 'residuall'"):
        Model({**content, "backbone": [[-1, 1, "DynamicConv", [16, 3, 2, {"residuall": True}]], *rows[1:]]})


def test_arguments_by_place_and_by_name_are_the_same() -> None:
    places = (8, 12, 3, 2, 1, 1, 4, False, 3)
    names = {"stride": 2, "padding": 1, "dilation": 1, "groups": 4, "bias": False, "K": 3}
    for kind, behind, options in (
        (CondConv2d, (), {}),
        (ODConv2d, (0.5, 3.0, True), {"ratio": 0.5, "temperature": 3.0, "norm": True}),
    ):
        torch.manual_seed(0)
        by_place = kind(*places, *behind)
        torch.manual_seed(0)
        by_name = kind(8, 12, 3, **names, **options)
        x = torch.randn(2, 8, 7, 6)
        assert torch.equal(by_place(x), by_name(x))
        assert by_name.routing.temperature in (None, 3.0)
    dynamic = Dynamic_conv2d(8, 12, 3, 0.5, *places[3:], 3.0)
    assert (dynamic.stride, dynamic.padding, dynamic.groups, dynamic.bias, dynamic.K) == (2, 1, 4, None, 3)
    assert (dynamic.attention.fc1.out_channels, dynamic.routing.temperature) == (4, 3.0)
    assert [
        len(layer.conv.weight)
        for _, layer in C3Dynamic(8, 8, 1, True, 1, 0.5, 2, 0.5).m.named_modules()
        if isinstance(layer, DynamicConv)
    ] == [2]


@pytest.mark.parametrize(
    ("kind", "option", "problem"),
    [
        (CondConv2d, {"temperature": 3.0}, "unexpected keyword argument 'temperature'"),
        (CondConv2d, {"residual": True}, "residual needs weights that sum to one"),
        (ODConv2d, {"raito": 0.5}, "unexpected keyword argument 'raito'"),
        (Dynamic_conv2d, {"strid": 2}, "unexpected keyword argument 'strid'"),
    ],
)
def test_an_option_that_a_kind_has_no_use_for_is_refused(kind: Any, option: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        kind(8, 12, 3, **option)
