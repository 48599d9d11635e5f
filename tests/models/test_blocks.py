"""The other layers of the v6.1 models, by hand-worked values and against plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import models.common
import models.experimental
from models.blocks import C3SPP, C3TR, SPP, BottleneckCSP, Classify, Contract, Expand, Focus, GhostBottleneck, GhostConv
from models.common import C3, Conv, DWConv
from models.experimental import CrossConv, MixConv2d, Sum


def test_contract_puts_the_place_in_the_square_before_the_channel() -> None:
    x = torch.arange(8.0).view(1, 2, 2, 2)  # channel 0: 0 1 / 2 3, channel 1: 4 5 / 6 7
    assert Contract(2)(x).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("gain", [1, 2, 3])
def test_expand_undoes_contract(gain: int) -> None:
    x = torch.rand(2, 3, 2 * gain, 4 * gain)
    small = Contract(gain)(x)
    assert small.shape == (2, 3 * gain**2, 2, 4)
    assert torch.equal(Expand(gain)(small), x)


def test_focus_gives_the_convolution_the_four_offsets_down_first() -> None:
    layer = Focus(1, 4)
    layer.conv = nn.Identity()
    x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert layer(x).flatten().tolist() == [0, 2, 1, 3]


def test_spp_pools_the_same_map_with_each_size() -> None:
    layer = SPP(2, 4, k=(3, 5))
    layer.cv1 = layer.cv2 = nn.Identity()
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    assert [int(one.sum()) for one in layer(x)[0]] == [1, 9, 25]


def test_depthwise_groups_are_the_greatest_common_divisor() -> None:
    assert DWConv(12, 18).conv.groups == 6


def test_ghost_convolution_is_the_primary_map_and_its_cheap_copy() -> None:
    layer = GhostConv(3, 8, 3, 2).eval()
    x = torch.rand(2, 3, 8, 8)
    primary = layer.cv1(x)
    assert torch.equal(layer(x), torch.cat([primary, layer.cv2(primary)], 1))
    assert layer.cv2.conv.groups == 4


@pytest.mark.parametrize(("stride", "side"), [(1, 8), (2, 4)])
def test_ghost_bottleneck_shrinks_by_its_stride(stride: int, side: int) -> None:
    layer = GhostBottleneck(8, 8, 3, stride).eval()
    x = torch.rand(1, 8, 8, 8)
    assert layer(x).shape == (1, 8, side, side)
    assert torch.equal(layer(x), layer.conv(x) + layer.shortcut(x))


def test_transformer_mixes_positions_and_keeps_images_apart() -> None:
    torch.manual_seed(0)
    layer = C3TR(16, 16, 1).eval()
    x = torch.rand(2, 16, 4, 4)
    changed = x.clone()
    changed[1, :, 0, 0] += 1
    before, after = layer(x), layer(changed)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1, :, 3, 3], after[1, :, 3, 3])  # the far corner sees it


def test_transformer_layer_is_attention_and_two_linear_maps_each_added() -> None:
    torch.manual_seed(0)
    layer = models.common.TransformerLayer(8, 2).eval()
    x = torch.rand(5, 3, 8)  # [positions, B, c]
    heads = [p.view(5, 3, 2, 4).permute(1, 2, 0, 3) for p in _projected(layer, x)]  # [B, heads, positions, 4]
    weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / 2, -1)
    attended = layer.ma.out_proj((weights @ heads[2]).permute(2, 0, 1, 3).reshape(5, 3, 8))
    y = x + attended
    torch.testing.assert_close(layer(x), y + layer.fc2(layer.fc1(y)), rtol=1e-5, atol=1e-6)


def _projected(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    weights, biases = layer.ma.in_proj_weight.chunk(3), layer.ma.in_proj_bias.chunk(3)
    inputs = [layer.q(x), layer.k(x), layer.v(x)]
    return [i @ w.T + b for i, w, b in zip(inputs, weights, biases)]


@pytest.mark.parametrize("layer", [BottleneckCSP(8, 12, 2), C3SPP(8, 12), C3TR(8, 24, 2), CrossConv(8, 12, 3, 2)])
def test_output_channels_are_those_asked_for(layer: nn.Module) -> None:
    channels = 24 if isinstance(layer, C3TR) else 12
    assert layer(torch.rand(2, 8, 8, 8)).shape[1] == channels


def test_cross_convolution_adds_its_input_when_it_fits() -> None:
    layer = CrossConv(8, 8, 3, shortcut=True).eval()
    x = torch.rand(1, 8, 5, 5)
    assert torch.equal(layer(x), x + layer.cv2(layer.cv1(x)))
    assert layer.cv1.conv.padding == (0, 1)


def test_sum_of_maps_plain_and_weighted() -> None:
    maps = [torch.full((1, 1, 1, 1), value) for value in (1.0, 10.0, 100.0)]
    assert Sum(3)(maps).item() == 111
    weighted = Sum(3, weight=True)
    with torch.no_grad():
        weighted.w.copy_(torch.tensor([0.0, float("inf")]))  # 2 * sigmoid: 1 and 2
    assert weighted(maps).item() == 211


@pytest.mark.parametrize(("equal", "widths"), [(True, [8, 8]), (False, [14, 2])])
def test_mixed_kernels_share_channels_or_weights_evenly(equal: bool, widths: list[int]) -> None:
    layer = MixConv2d(4, 16, (1, 3), equal_ch=equal)
    assert [conv.out_channels for conv in layer.m] == widths
    assert layer(torch.rand(2, 4, 6, 6)).shape == (2, 16, 6, 6)


def test_classify_averages_each_map_and_joins_them() -> None:
    layer = Classify(3, 2)
    one, two = torch.rand(4, 1, 5, 5), torch.rand(4, 2, 3, 3)
    means = torch.cat([one.mean((2, 3)), two.mean((2, 3))], 1)
    expected = means @ layer.conv.weight.flatten(1).T + layer.conv.bias
    torch.testing.assert_close(layer([one, two]), expected)


def test_the_well_known_names_are_reached_through_common_and_experimental() -> None:
    assert models.common.C3TR is C3TR and issubclass(C3TR, C3)
    assert models.common.GhostConv is GhostConv
    assert models.experimental.Ensemble.__name__ == "Ensemble"
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        models.common.Nonsense  # noqa: B018
    assert Conv(3, 8, (1, 3)).conv.padding == (0, 1)
