"""Contact sheets of batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.core.image import read_image
from utils.plots.annotate import color_for
from utils.plots.batches import plot_batch

NONE = torch.zeros(0, 6)


def has_color(image: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((image == np.array(color)).all(axis=2).any())


@pytest.mark.parametrize(("count", "columns", "lines"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (16, 4, 4), (40, 4, 4)])
def test_images_stand_in_a_grid_of_at_most_sixteen(tmp_path: Path, count: int, columns: int, lines: int) -> None:
    file = tmp_path / "batch.png"
    plot_batch(torch.zeros(count, 3, 300, 320, dtype=torch.uint8), NONE, [], file)
    assert read_image(file).shape == (lines * 304 - 4, columns * 324 - 4, 3)


def test_a_large_grid_is_made_smaller_and_a_small_one_larger(tmp_path: Path) -> None:
    for side, file in ((640, tmp_path / "large.png"), (32, tmp_path / "small.png")):
        plot_batch(torch.zeros(4, 3, side, side, dtype=torch.uint8), NONE, [], file, max_side=600)
    assert 590 <= max(read_image(tmp_path / "large.png").shape) <= 600
    assert 500 <= max(read_image(tmp_path / "small.png").shape) <= 600


def test_red_images_come_out_red_from_bytes_and_from_floats(tmp_path: Path) -> None:
    red = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)
    red[:, 0] = 255
    for images in (red, red.float() / 255, (red.float() / 255).half()):
        plot_batch(images, NONE, [], tmp_path / "red.png")
        assert (read_image(tmp_path / "red.png") == (0, 0, 255)).all()


def test_a_box_is_drawn_in_its_image_with_the_colour_of_its_class(tmp_path: Path) -> None:
    targets = torch.tensor([[1, 3, 0.5, 0.5, 0.4, 0.4]])
    plot_batch(torch.zeros(2, 3, 300, 300, dtype=torch.uint8), targets, [], tmp_path / "b.png", ["a", "b", "c", "d"])
    sheet = read_image(tmp_path / "b.png")
    assert not has_color(sheet[:, :300], color_for(3))
    assert has_color(sheet[:, 304:], color_for(3))
    assert tuple(sheet[210, 304 + 150]) == color_for(3)


def test_detections_below_the_threshold_are_left_out(tmp_path: Path) -> None:
    targets = torch.tensor([[0, 1, 0.3, 0.5, 0.2, 0.2, 0.9], [0, 2, 0.7, 0.5, 0.2, 0.2, 0.1]])
    plot_batch(torch.zeros(1, 3, 300, 300, dtype=torch.uint8), targets, [], tmp_path / "b.png")
    sheet = read_image(tmp_path / "b.png")
    assert has_color(sheet, color_for(1))
    assert not has_color(sheet, color_for(2))


def test_the_file_name_stands_at_the_bottom(tmp_path: Path) -> None:
    plot_batch(torch.zeros(1, 3, 300, 300, dtype=torch.uint8), NONE, ["some/folder/café.jpg"], tmp_path / "b.png")
    rows = np.flatnonzero(read_image(tmp_path / "b.png").any(axis=(1, 2)))
    assert rows.min() > 270
    assert rows.max() == 299


def test_a_class_without_a_name_is_shown_by_number(tmp_path: Path) -> None:
    targets = torch.tensor([[0, 7, 0.5, 0.5, 0.4, 0.4]])
    plot_batch(torch.zeros(1, 3, 64, 64), targets, [], tmp_path / "b.png", ["a"])
    assert has_color(read_image(tmp_path / "b.png"), color_for(7))


def test_a_batch_without_images_is_an_empty_sheet(tmp_path: Path) -> None:
    plot_batch(torch.zeros(0, 3, 32, 64), torch.zeros(0, 6), [], tmp_path / "a.png")
    sheet = read_image(tmp_path / "a.png")
    assert sheet.shape == (128, 256, 3) and (sheet == 255).all()
