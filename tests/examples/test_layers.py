"""The layers of examples/layers against their formulas, written as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fuse import fuse
from models.yolo import Model
from utils.core.errors import InputError

Load = Callable[[str], ModuleType]


# AKConv ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "rows", "columns"),
    [
        (1, [0], [0]),
        (2, [0, 1], [0, 0]),
        (3, [0, 0, 1], [0, 1, 0]),
        (5, [0, 0, 1, 1, 2], [0, 1, 0, 1, 0]),
        (7, [0, 0, 0, 1, 1, 1, 2], [0, 1, 2, 0, 1, 2, 0]),
        (9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2, 0, 1, 2]),
    ],
)  # fmt: skip
def test_any_number_of_positions_fills_rows_of_about_its_square_root(
    load: Load, n: int, rows: list[int], columns: list[int]
) -> None:
    assert load("akconv").initial_positions(n).tolist() == [rows, columns]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("hw", [(8, 10), (9, 7), (1, 1)])
def test_nine_positions_start_as_a_3x3_convolution_padded_on_the_right_and_at_the_bottom(
    load: Load, stride: int, hw: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer, x = load("akconv").AKConv(4, 6, 9, stride), torch.randn(2, 4, *hw)
    expected = F.conv2d(F.pad(x, (0, 2, 0, 2)), layer.conv.weight.view(6, 4, 3, 3), stride=stride)
    samples = layer.sampling(x, layer.offsets(x))
    torch.testing.assert_close(layer.conv(samples), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.eval()(x), F.silu(layer.bn(expected)), rtol=1e-5, atol=1e-5)


def value_at(channel: Tensor, y: float, x: float) -> float:
    """Bilinear interpolation of [H, W] at a position in cells; 0 outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < channel.shape[0] and 0 <= column < channel.shape[1]:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * float(channel[row, column])
    return total


@pytest.mark.parametrize(("n", "stride"), [(1, 1), (5, 1), (5, 2), (6, 3)])
def test_samples_at_moved_positions_equal_a_loop_and_are_0_outside(load: Load, n: int, stride: int) -> None:
    torch.manual_seed(0)
    akconv = load("akconv")
    x, offsets = torch.randn(2, 3, 6, 5), 3 * torch.randn(2, 2 * n, -(-6 // stride), -(-5 // stride))
    found = akconv.Sampling(n, stride)(x, offsets)
    assert found.shape == (2, 3 * n, *offsets.shape[2:])
    rows, columns = akconv.initial_positions(n).tolist()
    for b, c, p, i, j in torch.cartesian_prod(*map(torch.arange, (2, 3, n, *offsets.shape[2:]))).tolist():
        y = stride * i + rows[p] + float(offsets[b, p, i, j])
        column = stride * j + columns[p] + float(offsets[b, n + p, i, j])
        assert float(found[b, c * n + p, i, j]) == pytest.approx(value_at(x[b, c], y, column), abs=1e-5)
    assert (found == 0).any()  # offsets of 3 cells lead out of a map of 6 x 5


def test_offsets_learn_from_the_first_step_and_the_norm_folds(load: Load) -> None:
    torch.manual_seed(0)
    akconv = load("akconv")
    layer, x = akconv.AKConv(3, 4, 5), torch.rand(2, 3, 8, 8)
    layer(x).square().sum().backward()
    assert layer.offsets.weight.grad.abs().sum() > 0
    expected = layer.eval()(x)
    assert "bn" not in fuse(layer)._modules
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [0, 2.5, True])
def test_a_number_of_positions_that_is_none_is_refused_by_value(load: Load, n: float) -> None:
    with pytest.raises(ValueError, match=f"whole number of at least 1, got {n}"):
        load("akconv").AKConv(3, 4, n)


# Attention ------------------------------------------------------------------------------------------------------------


def test_coordinate_attention_weighs_each_value_by_its_row_and_its_column(load: Load) -> None:
    torch.manual_seed(0)
    layer, x = load("coordatt").CoordAtt(16, 2).eval(), torch.randn(2, 16, 5, 4)
    y = layer(x)

    def hidden(vector: Tensor) -> Tensor:
        """[C] -> [C / r]."""
        z = layer.reduce.bn((layer.reduce.conv.weight[:, :, 0, 0] @ vector)[None, :, None, None])
        return F.silu(z).flatten()

    for b in range(2):
        for i in range(5):
            row = sum(x[b, :, i, j] for j in range(4)) / 4
            by_row = torch.sigmoid(layer.of_rows.weight[:, :, 0, 0] @ hidden(row) + layer.of_rows.bias)
            for j in range(4):
                column = sum(x[b, :, k, j] for k in range(5)) / 5
                across = layer.of_columns.weight[:, :, 0, 0] @ hidden(column) + layer.of_columns.bias
                expected = x[b, :, i, j] * by_row * torch.sigmoid(across)
                torch.testing.assert_close(y[b, :, i, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "hidden"), [(16, 8), (256, 8), (512, 16)])
def test_the_hidden_layer_of_coordinate_attention_has_at_least_8_channels(
    load: Load, channels: int, hidden: int
) -> None:
    assert load("coordatt").CoordAtt(channels).reduce.conv.out_channels == hidden


def test_cbam_weighs_channels_then_positions(load: Load) -> None:
    torch.manual_seed(0)
    layer, x = load("cbam").CBAM(8, 2, 3), torch.randn(2, 8, 5, 6)
    narrow, wide = (layer.channels.mlp[i].weight[:, :, 0, 0] for i in (0, 2))
    kernel = layer.positions.conv.weight[0]  # [2, 3, 3]
    y = layer(x)
    for b in range(2):
        mean, largest = (torch.stack([take(channel) for channel in x[b]]) for take in (torch.mean, torch.max))
        logits = sum(wide @ (narrow @ vector).clamp(min=0) for vector in (mean, largest))
        weighted = x[b] * torch.sigmoid(logits)[:, None, None]
        padded = F.pad(torch.stack([weighted.mean(0), weighted.max(0).values]), (1, 1, 1, 1))
        for i in range(5):
            for j in range(6):
                factor = torch.sigmoid((kernel * padded[:, i : i + 3, j : j + 3]).sum())
                torch.testing.assert_close(y[b, :, i, j], weighted[:, i, j] * factor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "k"), [(1, 1), (8, 3), (16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_the_kernel_of_eca_is_the_odd_number_nearest_to_half_of_log2_plus_one_half(
    load: Load, channels: int, k: int
) -> None:
    t = abs(math.log2(channels) / 2 + 1 / 2)
    assert load("eca").kernel_size(channels) == k
    assert k % 2 == 1 and abs(k - t) <= 1


def test_eca_weighs_a_channel_by_the_means_of_its_neighbours(load: Load) -> None:
    torch.manual_seed(0)
    layer, x = load("eca").ECA(64), torch.randn(2, 64, 3, 4)
    weights = layer.conv.weight.flatten().tolist()
    assert len(weights) == 3 and sum(p.numel() for p in layer.parameters()) == 3
    y = layer(x)
    for b in range(2):
        means = [0.0, *x[b].mean((1, 2)).tolist(), 0.0]
        for c in range(64):
            factor = 1 / (1 + math.exp(-sum(w * means[c + i] for i, w in enumerate(weights))))
            torch.testing.assert_close(y[b, c], x[b, c] * factor, rtol=1e-4, atol=1e-5)


# BiFPN ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.5, 2.0, 3.0], [-1.0, 4.0]])
def test_bifpn_is_the_mean_with_its_weights_none_of_them_below_0(load: Load, weights: list[float]) -> None:
    torch.manual_seed(0)
    layer, maps = load("bifpn").BiFPN(len(weights)), [torch.randn(2, 3, 4, 5) for _ in weights]
    layer.w.data = torch.tensor(weights)
    kept = [max(0.0, w) for w in weights]
    shares = layer.shares().tolist()
    assert shares == pytest.approx([w / (1e-4 + sum(kept)) for w in kept], rel=1e-6)
    assert 1 - 1e-4 < sum(shares) < 1 and min(shares) >= 0
    expected = sum(share * one for share, one in zip(shares, maps))
    torch.testing.assert_close(layer(maps), expected, rtol=1e-5, atol=1e-6)


def test_bifpn_starts_with_equal_weights_that_learn(load: Load) -> None:
    layer = load("bifpn").BiFPN(2)
    ones, twos = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)
    assert layer([ones, twos]).mean().item() == pytest.approx(1.5, abs=1e-3)
    layer([ones, twos]).sum().backward()
    assert layer.w.grad[0] < 0 < layer.w.grad[1]


# Rows -----------------------------------------------------------------------------------------------------------------


def nano_with(row: list[object]) -> dict[str, object]:
    detect = [[1], 1, "Detect", ["nc", "anchors"]]
    rows = [[-1, 1, "Conv", [64, 3, 2]], row]
    return {"nc": 2, "width_multiple": 0.5, "anchors": [[10, 13]], "backbone": rows, "head": [detect]}


@pytest.mark.parametrize(
    ("file", "row", "problem"),
    [
        ("eca", [-1, 1, "ECA", [64]], "the kernel must be odd and at most 32, got 64; the 32 channels are no argument"),
        ("cbam", [-1, 1, "CBAM", [64]], "ratio must be from 1 to 31, got 64; the 32 channels are no argument"),
        ("coordatt", [-1, 1, "CoordAtt", [64]], "ratio must be from 1 to 32, got 64; the 32 channels are no argument"),
        ("akconv", [-1, 1, "AKConv", [64]], "it takes (c1, c2, n, s, act)"),
    ],
)  # fmt: skip
def test_rows_as_other_repositories_write_them_are_told_what_is_expected(
    load: Load, file: str, row: list[object], problem: str
) -> None:
    load(file)
    with pytest.raises(InputError) as caught:
        Model(nano_with(row))
    assert problem in str(caught.value) and "\n" not in str(caught.value)
