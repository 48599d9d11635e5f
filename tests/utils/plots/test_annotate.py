"""Colours, boxes and labels."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from utils.config.paths import ROOT
from utils.plots.annotate import Annotator, color_for, text_color_on
from utils.plots.fonts import font_file

RED = (0, 0, 255)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def test_colours_repeat_after_the_palette_and_never_before() -> None:
    colors = [color_for(i) for i in range(20)]
    assert len(set(colors)) == 20
    assert color_for(20) == colors[0]


def test_any_two_colours_are_far_apart_in_cielab() -> None:
    bgr = np.array([[color_for(i) for i in range(20)]], dtype=np.float32) / 255
    lab = cv2.cvtColor(bgr, cv2.COLOR_BGR2LAB)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distance[~np.eye(20, dtype=bool)].min() > 20


def test_the_first_colours_differ_for_colour_blind_readers_too() -> None:
    srgb = np.array([color_for(i)[::-1] for i in range(8)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for red, green in (((0.29275, 0.70725), (0.29275, 0.70725)), ((0.11238, 0.88762), (0.11238, 0.88762))):
        seen = np.stack([linear[:, :2] @ red, linear[:, :2] @ green, linear[:, 2]], axis=1)  # Vienot 1999
        shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055).astype(np.float32)
        lab = cv2.cvtColor(shown[None], cv2.COLOR_RGB2LAB)[0]
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
        assert distance[~np.eye(8, dtype=bool)].min() > 20


def test_a_label_that_would_cover_another_one_is_not_written_when_only_free() -> None:
    annotator = Annotator(np.zeros((100, 100, 3), dtype=np.uint8), line_width=1)
    annotator.label((20, 40, 60, 80), "first", RED)
    before = annotator.result().copy()
    annotator.label((25, 42, 60, 80), "second", RED, only_free=True)
    assert not changed(before, annotator.result()).any()
    annotator.label((20, 80, 60, 95), "second", RED, only_free=True)
    assert changed(before, annotator.result()).any()


def test_text_is_white_on_dark_and_black_on_light() -> None:
    assert text_color_on((128, 0, 0)) == (255, 255, 255)
    assert text_color_on((0, 255, 255)) == (0, 0, 0)


def test_the_given_image_is_left_as_it_is() -> None:
    image = np.zeros((50, 60, 3), dtype=np.uint8)
    result = Annotator(image)
    result.box_label((5, 20, 40, 40), "a", RED)
    assert not image.any()
    assert result.result().any()


def test_a_box_is_drawn_at_its_corners() -> None:
    annotator = Annotator(np.zeros((100, 100, 3), dtype=np.uint8), line_width=1)
    annotator.box_label((20, 30, 70, 80), color=RED)
    result = annotator.result()
    for y, x in ((30, 20), (30, 70), (80, 20), (80, 70), (30, 45), (55, 70)):
        assert tuple(result[y, x]) == RED
    assert not result[31:80, 21:70].any()


def test_a_label_stands_above_its_box() -> None:
    blank = np.zeros((200, 200, 3), dtype=np.uint8)
    annotator = Annotator(blank, line_width=1)
    annotator.box_label((50, 100, 150, 180), "cat", RED)
    rows = np.flatnonzero(changed(blank, annotator.result()).any(axis=1))
    assert 100 - 25 < rows.min() < 100 - 8
    assert rows.max() == 180


def test_a_label_without_room_above_stands_inside_the_box() -> None:
    blank = np.zeros((200, 200, 3), dtype=np.uint8)
    annotator = Annotator(blank, line_width=1)
    annotator.box_label((50, 2, 150, 180), "cat", RED)
    assert np.flatnonzero(changed(blank, annotator.result()).any(axis=1)).min() == 2


@pytest.mark.parametrize("side", [64, 320, 1280, 4000])
def test_label_height_suits_the_size_of_the_image(side: int) -> None:
    blank = np.zeros((side, side, 3), dtype=np.uint8)
    annotator = Annotator(blank)
    annotator.text(0, 0, "A", background=RED)
    height = changed(blank, annotator.result()).any(axis=1).sum()
    assert height >= 10
    assert 0.02 * side <= height <= max(0.04 * side, 22)


@pytest.mark.parametrize("box", [(60, 40, 63, 50), (-50, -50, 5, 5), (0, 62, 20, 90), (np.nan, 10, np.inf, 20)])
def test_a_box_at_any_place_keeps_its_whole_label_inside(box: tuple[float, ...]) -> None:
    image = np.full((64, 64, 3), 9, dtype=np.uint8)
    annotator = Annotator(image)
    annotator.box_label(box, "dog", (0, 255, 0))
    alone = Annotator(image)
    alone.text(10, 10, "dog", background=(0, 255, 0))
    strip = changed(image, alone.result())
    assert changed(image, annotator.result()).sum() >= strip.sum()


def test_a_label_wider_than_the_image_is_written_smaller() -> None:
    blank = np.zeros((100, 100, 3), dtype=np.uint8)
    wide, short = Annotator(blank, line_width=3), Annotator(blank, line_width=3)
    wide.text(0, 0, "traffic light 0.97", background=RED)
    short.text(0, 0, "a", background=RED)
    heights = [changed(blank, image.result()).any(axis=1).sum() for image in (wide, short)]
    assert heights[0] < heights[1]


def test_a_hopelessly_long_label_and_a_tiny_image_do_not_fail() -> None:
    annotator = Annotator(np.zeros((3, 5, 3), dtype=np.uint8))
    annotator.box_label((0, 0, 4, 2), "x" * 500, RED)
    assert annotator.result().shape == (3, 5, 3)


def test_accented_letters_differ_from_plain_ones() -> None:
    def written(text: str) -> np.ndarray:
        annotator = Annotator(np.zeros((40, 200, 3), dtype=np.uint8))
        annotator.text(0, 0, text)
        return annotator.result()

    assert (written("é") != written("e")).any()


def test_a_script_no_font_knows_is_still_drawn() -> None:
    blank = np.zeros((60, 200, 3), dtype=np.uint8)
    annotator = Annotator(blank)
    annotator.box_label((5, 30, 100, 50), "红细胞 0.8", RED)
    assert changed(blank, annotator.result()).any()


def test_the_font_of_a_plain_text_exists() -> None:
    file = font_file("cat")
    assert file is not None
    assert file.endswith("DejaVuSans.ttf")


def test_importing_the_plots_does_not_import_matplotlib() -> None:
    code = "import sys, utils.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_label_of_a_million_letters_is_cut() -> None:
    annotator = Annotator(np.zeros((40, 60, 3), np.uint8))
    annotator.box_label([5, 20, 50, 35], "A" * 2_000_000, (0, 0, 255))
    assert annotator.result().any()
