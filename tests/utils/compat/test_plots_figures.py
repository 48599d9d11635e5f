"""Plots of v6.1 with its arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils import plots
from utils.core.errors import InputError
from utils.core.image import read_image


def test_colours() -> None:
    colors = plots.Colors()
    assert colors(3) == colors(3 + colors.n) == colors.palette[3] == colors(3, bgr=True)[::-1]
    assert colors.hex2rgb("#FF8000") == (255, 128, 0)


def test_detections_become_rows() -> None:
    found = [torch.zeros(0, 6), torch.tensor([[10.0, 20, 30, 60, 0.9, 2]])]
    assert plots.output_to_target(found) == pytest.approx(np.array([[1, 2, 20, 40, 20, 40, 0.9]]))
    assert plots.output_to_target([]).shape == (0, 7)


@pytest.mark.parametrize("in_pixels", [False, True])
def test_a_sheet_of_images_takes_fractions_and_pixels(tmp_path: Path, in_pixels: bool) -> None:
    images = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    box = torch.tensor([0.5, 0.5, 0.25, 0.25]) * (256 if in_pixels else 1)
    targets = torch.cat([torch.tensor([1.0, 1]), box])[None]
    plots.plot_images(images, targets, ["a.jpg", "b.jpg"], tmp_path / "x.png", {0: "ant", 1: "bee"})
    sheet = read_image(tmp_path / "x.png")
    second = sheet[:, -256:]
    assert second[96:160, 94:98].max() > 100  # the left edge of the box
    assert sheet[20:200, 20:236].max() < 20  # nothing in the first image


def test_a_feature_map_becomes_an_image_and_an_array(tmp_path: Path) -> None:
    plots.feature_visualization(torch.rand(1, 4, 8, 8), "models.common.Conv", 3, save_dir=tmp_path)
    assert np.load(tmp_path / "stage3_Conv_features.npy").shape == (4, 8, 8)
    plots.feature_visualization(torch.rand(1, 4, 8, 8), "models.yolo.Detect", 9, save_dir=tmp_path)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".npy", ".png"]


def test_studies_of_a_folder_share_a_chart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study"):
        plots.plot_val_study(dir=tmp_path)
    for name in ("a", "b"):
        np.savetxt(tmp_path / f"study_coco_{name}.txt", np.random.default_rng(0).random((3, 10)))
    plots.plot_val_study(dir=tmp_path, x=[256, 384, 512])
    assert (tmp_path / "study.png").is_file()
