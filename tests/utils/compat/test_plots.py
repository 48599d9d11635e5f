"""Drawing with the calls of v6.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.core.image import read_image
from utils.plots import Annotator, color_for, colors, plot_one_box, save_one_box
from utils.plots.crops import crop_box


def test_colours_come_in_either_order() -> None:
    blue, green, red = color_for(3)
    assert colors(3) == (red, green, blue)
    assert colors(3.0, True) == (blue, green, red)


def test_boxes_are_drawn_into_the_image_that_was_given() -> None:
    image = np.zeros((80, 120, 3), np.uint8)
    annotator = Annotator(image, line_width=3, font_size=None, font="Arial.ttf", pil=False, example="猫")
    annotator.box_label(torch.tensor([20.0, 30, 60, 70]), "cat 0.90", color=(1, 2, 250), txt_color=(0, 0, 0))
    assert annotator.result() is image
    assert image[70, 40].tolist() == [1, 2, 250]
    assert image[50, 40].tolist() == [0, 0, 0]
    assert annotator.im is image
    assert annotator.lw == 3


@pytest.mark.parametrize("kind", ["read-only", "sliced", "pil"])
def test_images_that_cannot_be_drawn_into_are_copied(kind: str) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    given: np.ndarray | Image.Image = image[..., ::-1] if kind == "sliced" else image
    if kind == "read-only":
        image.flags.writeable = False
    if kind == "pil":
        given = Image.fromarray(image)
    annotator = Annotator(given)
    annotator.box_label([10, 10, 30, 30], color=(0, 0, 255))
    annotator.text((5, 5), "hello", txt_color=(255, 255, 255))
    assert annotator.result().max() == 255
    assert image.max() == 0


def test_one_box_in_the_old_way() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    plot_one_box([10, 10, 30, 30], image, color=[9, 8, 7], label="a", line_thickness=1)
    assert image[30, 20].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("gain", "pad", "square", "box", "shape"),
    [
        (1.0, 0, False, [10, 20, 30, 60], (40, 20)),
        (1.0, 10, False, [10, 20, 30, 60], (50, 30)),
        (2.0, 0, False, [40, 40, 50, 60], (40, 20)),
        (1.0, 0, True, [40, 20, 50, 60], (40, 40)),
        (1.0, 4, True, [40, 20, 50, 60], (44, 44)),
        (2.0, 0, True, [40, 40, 50, 60], (40, 40)),
        (1.0, 20, False, [0, 0, 10, 10], (20, 20)),  # cut off at the corner of the image
        (1.0, 0, False, [10, 10, 10, 30], (20, 0)),
        (1.0, 0, False, [-30, -30, -10, -10], (0, 0)),
    ],
)
def test_size_of_a_crop(gain: float, pad: float, square: bool, box: list[float], shape: tuple[int, int]) -> None:
    assert crop_box(np.zeros((100, 100, 3), np.uint8), box, gain, pad, square).shape[:2] == shape


def test_a_saved_crop_keeps_its_colours(tmp_path: Path) -> None:
    rgb = np.full((50, 50, 3), (250, 0, 0), np.uint8)
    for name, image, bgr in (("rgb", rgb, False), ("bgr", rgb[..., ::-1], True)):
        crop = save_one_box(torch.tensor([[10.0, 10, 30, 30]]), image, tmp_path / "new" / f"{name}.png", BGR=bgr)
        assert crop[0, 0].tolist() == [0, 0, 250]
        assert read_image(tmp_path / "new" / f"{name}.jpg")[5, 5].tolist() == pytest.approx([0, 0, 250], abs=4)
    save_one_box([10, 10, 30, 30], rgb, tmp_path / "new/rgb.jpg")
    assert (tmp_path / "new/rgb2.jpg").is_file()


def test_a_crop_need_not_be_saved(tmp_path: Path) -> None:
    crop = save_one_box(
        [10, 10, 30, 30], np.zeros((50, 50, 3), np.uint8), tmp_path / "a.jpg", pad=0, gain=1, save=False
    )
    assert crop.shape == (20, 20, 3)
    assert list(tmp_path.iterdir()) == []
