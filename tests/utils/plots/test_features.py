"""Grids of feature maps, and the hooks that gather the maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.tta import AugmentedModel
from models.yolo import Model
from utils.core.image import read_image
from utils.plots.features import FeatureMaps, feature_grid


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("yolov5n_dynamic.yaml", nc=2).eval()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 64, 64), (64, 64)),
        ((3, 64, 96), (64, 3 * 98 - 2)),
        ((9, 64, 64), (2 * 66 - 2, 8 * 66 - 2)),
        ((100, 64, 64), (4 * 66 - 2, 8 * 66 - 2)),  # 32 of them
        ((2, 2, 3), (44, 2 * 68 - 2)),  # 22 pixels a value
        ((1, 1, 1), (64, 64)),
        ((1, 384, 768), (96, 192)),
    ],
)
def test_channels_stand_in_rows_of_eight_at_a_size_that_can_be_seen(shape, size) -> None:
    assert feature_grid(torch.rand(shape)).shape == (*size, 3)


def test_every_channel_is_coloured_over_its_own_range() -> None:
    ramp = torch.linspace(0, 1, 64).expand(64, 64)
    grid = feature_grid(torch.stack([ramp, ramp * 1000 - 5]))
    assert (grid[:, :64] == grid[:, 66:]).all()
    assert len(np.unique(grid[0, :64], axis=0)) > 50


def test_equal_values_have_one_colour_the_darkest() -> None:
    flat = feature_grid(torch.full((1, 64, 64), 7.0))
    ramp = feature_grid(torch.linspace(0, 1, 64).expand(1, 64, 64))
    assert (flat == ramp[0, 0]).all()


def test_half_and_arrays_give_the_same_image_as_floats() -> None:
    values = torch.randint(0, 100, (4, 8, 8)).float()
    expected = feature_grid(values)
    for same in (values.half(), values.bfloat16(), values.numpy()):
        assert (feature_grid(same) == expected).all()


def test_values_that_are_not_finite_count_as_zero() -> None:
    values = torch.ones(1, 64, 64)
    values[0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    grid = feature_grid(values)
    assert (grid[0, :3] == grid[0, 0]).all() and (grid[0, 0] != grid[1, 1]).any()


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 3, 4), (0, 4, 4)])
def test_other_shapes_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"expected a feature map \[C, H, W\]"):
        feature_grid(torch.zeros(shape))


def test_maps_of_all_layers_but_the_head_are_those_that_flow_through_the_model(model: Model) -> None:
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad(), FeatureMaps(model) as features:
        model(x)
    assert sorted(features.by_layer) == list(range(24))
    assert features.by_layer[0].shape == (16, 32, 48)
    with torch.no_grad():
        assert torch.equal(features.by_layer[0], model.model[0](x)[0])


def test_hooks_are_gone_after_the_block_and_after_an_error(model: Model) -> None:
    features = FeatureMaps(model)
    with pytest.raises(KeyError), features:
        raise KeyError
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    assert features.by_layer == {}
    assert not any(layer._forward_hooks for layer in model.model)


def test_a_second_block_starts_anew(model: Model) -> None:
    features = FeatureMaps(model)
    for width in (64, 96):
        with torch.no_grad(), features:
            model(torch.rand(1, 3, 64, width))
        assert features.by_layer[0].shape[2] == width // 2


def test_of_an_augmented_model_the_full_size_view_is_kept(model: Model) -> None:
    with torch.no_grad(), FeatureMaps(AugmentedModel(model).eval()) as features:
        AugmentedModel(model).eval()(torch.rand(1, 3, 128, 128))
    assert features.by_layer[0].shape == (16, 64, 64)


def test_files_are_named_by_index_and_type_and_hold_all_channels(model: Model, tmp_path: Path) -> None:
    with torch.no_grad(), FeatureMaps(model) as features:
        model(torch.rand(1, 3, 64, 64))
    features.save(tmp_path / "a")
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert len(names) == 48
    assert {"stage0_Conv_features.png", "stage10_Dynamic_conv2d_features.npy", "stage11_Upsample_features.png"} <= names
    stored = np.load(tmp_path / "a/stage9_SPPF_features.npy")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, features.by_layer[9].numpy())
    assert stored.shape[0] == 256
    image = read_image(tmp_path / "a/stage9_SPPF_features.png")
    assert (image == feature_grid(features.by_layer[9])).all()


def test_a_module_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential holds no model"):
        FeatureMaps(nn.Sequential())
