"""Augmentations: labels stay with the pixels they describe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from utils.core.image import LetterboxInfo
from utils.datasets.augment.geometry import Sample, WarpRanges, learnable_boxes, warp_sample
from utils.datasets.augment.pixels import (
    HsvJitter,
    _join_segments,
    as_image,
    copy_paste_sample,
    draw_jitter,
    flip_horizontal,
    flip_vertical,
    interleaved,
    mixup_samples,
    planes_of,
)

STILL = WarpRanges()
WARPS = {
    "rotation": WarpRanges(degrees=45.0),
    "shift": WarpRanges(translate=0.2),
    "scale": WarpRanges(scale=0.5),
    "shear": WarpRanges(shear=15.0),
    "tilt": WarpRanges(perspective=0.001),
    "everything": WarpRanges(degrees=20.0, translate=0.1, scale=0.3, shear=5.0, perspective=0.0005),
}


def marked(box: tuple[int, int, int, int] = (20, 24, 40, 36), side: int = 64, outlined: bool = False) -> Sample:
    """A black image with a white rectangle and the box around it."""
    x1, y1, x2, y2 = box
    image = np.zeros((side, side, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    polygon = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    info = LetterboxInfo((side, side), (1.0, 1.0), (0.0, 0.0))
    boxes = np.array([[1, *box]], np.float32)
    return Sample(image, boxes, [polygon] if outlined else [], "marked.png", info)


def bright_box(image: np.ndarray) -> np.ndarray:
    """Corners around the white pixels; the grey of the border is darker than the threshold."""
    rows, columns = np.nonzero(image[..., 0] > 180)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_box_candidates_keep_what_the_reference_keeps(golden: Any) -> None:
    before, after = golden.array("coords/box_candidates_before"), golden.array("coords/box_candidates_after")
    for threshold in ("0.10", "0.01"):
        kept = learnable_boxes(before, after, area_thr=float(threshold))
        np.testing.assert_array_equal(kept, golden.array(f"coords/box_candidates_area{threshold}"))


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ([0, 0, 10, 10], True),
        ([0, 0, 2, 10], False),  # not more than 2 px wide
        ([0, 0, 3, 3], False),  # 9 of 100 px left
        ([0, 0, 300, 2.9], False),  # 103 times as wide as high
        ([0, 0, 100, 4], True),  # 25 times
    ],
)
def test_box_candidates_drop_thin_hidden_and_elongated_boxes(after: list[float], kept: bool) -> None:
    assert learnable_boxes(np.array([[0.0, 0, 10, 10]]), np.array([after], float)).tolist() == [kept]


def test_box_candidates_accept_no_boxes() -> None:
    assert learnable_boxes(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)


def test_a_warp_with_all_ranges_zero_changes_nothing() -> None:
    sample = marked()
    result = warp_sample(sample, None, STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(result.image, sample.image)
    np.testing.assert_allclose(result.boxes, sample.boxes)


def test_a_smaller_result_is_the_centre() -> None:
    result = warp_sample(marked(), (32, 32), STILL, np.random.default_rng(0))
    assert result.image.shape == (32, 32, 3)
    np.testing.assert_allclose(result.boxes, [[1, 4, 8, 24, 20]])


@pytest.mark.parametrize("warp", WARPS)
@pytest.mark.parametrize("outlined", [False, True])
def test_warped_boxes_stay_on_the_marker_and_inside_the_image(warp: str, outlined: bool) -> None:
    checked = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        result = warp_sample(marked(outlined=outlined), None, WARPS[warp], rng)
        assert len(result.segments) == (len(result.boxes) if outlined else 0)
        if len(result.boxes) == 0:
            continue
        box = result.boxes[0, 1:]
        assert (box >= 0).all() and (box <= 64).all()
        # The pixels end where the interpolated edge falls below the threshold.
        np.testing.assert_allclose(box, bright_box(result.image), atol=2)
        checked += 1
    assert checked >= 15


def test_an_outline_gives_a_tighter_box_than_the_turned_corners() -> None:
    diamond = np.array([[32, 16], [48, 32], [32, 48], [16, 32]], np.float32)
    sample = Sample(marked().image, np.array([[0, 16, 16, 48, 48]], np.float32), [diamond], "", marked().info)
    turned = WarpRanges(degrees=45.0)
    for seed in range(5):
        by_outline = warp_sample(sample, None, turned, np.random.default_rng(seed)).boxes[0, 1:]
        no_outline = Sample(sample.image, sample.boxes, [], "", sample.info)
        by_corners = warp_sample(no_outline, None, turned, np.random.default_rng(seed)).boxes[0, 1:]
        assert np.prod(by_outline[2:] - by_outline[:2]) < np.prod(by_corners[2:] - by_corners[:2])


def test_the_same_seed_gives_the_same_warp() -> None:
    first, second = (warp_sample(marked(), None, WARPS["everything"], np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)


@pytest.mark.parametrize("flip", [flip_horizontal, flip_vertical])
def test_flips_move_box_and_pixels_together(flip: Any) -> None:
    sample = marked(outlined=True)
    flipped = flip(sample)
    np.testing.assert_array_equal(flipped.boxes[0, 1:], bright_box(flipped.image))
    np.testing.assert_array_equal(flipped.segments[0].min(0), flipped.boxes[0, 1:3])
    np.testing.assert_array_equal(flip(flipped).image, sample.image)
    np.testing.assert_array_equal(flip(flipped).boxes, sample.boxes)


def test_colour_jitter_leaves_its_input_alone_and_follows_the_seed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    before = image.copy()
    first, second = (draw_jitter(0.1, 0.7, 0.4, np.random.default_rng(3))(image) for _ in range(2))  # type: ignore[misc]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)
    assert (first != image).any()


def test_value_jitter_of_a_grey_image_is_a_multiplication() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    factor = 1 + np.random.default_rng(5).uniform(-1, 1, 3)[2] * 0.4
    jitter = draw_jitter(0.0, 0.0, 0.4, np.random.default_rng(5))
    assert jitter is not None
    result = jitter(image)
    np.testing.assert_array_equal(result, np.full_like(image, round(100 * factor)))
    assert HsvJitter((1.0, 1.3, factor)).grey(100) == round(100 * factor)


@pytest.mark.parametrize(
    ("factors", "bgr", "expected"),
    [
        ((1.0, 1.0, 1.0), (10, 20, 200), (10, 20, 200)),
        ((1.0, 0.0, 1.0), (10, 20, 200), (200, 200, 200)),  # no colour left
        ((1.0, 0.5, 1.0), (100, 60, 200), (150, 130, 200)),  # half way to the largest
        ((1.0, 1.5, 1.0), (100, 60, 200), (50, 0, 200)),  # -10 is cut off
        ((1.0, 1.0, 1.5), (100, 60, 200), (150, 90, 255)),
        ((1.0, 0.5, 0.5), (100, 60, 200), (75, 65, 100)),
        ((1 + 2 / 3, 1.0, 1.0), (10, 20, 200), (20, 200, 10)),  # a third of a turn: red becomes green, green blue
    ],
)
def test_colours_follow_their_factors(
    factors: tuple[float, float, float], bgr: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert HsvJitter(factors)(np.array([[bgr]], np.uint8)).tolist() == [[list(expected)]]


@pytest.mark.parametrize("seed", range(6))
def test_colours_are_near_those_of_hsv_with_multiplied_channels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(20, 180, (6, 6, 3), np.uint8), (96, 96))
    factors = (1 + rng.uniform(-0.015, 0.015), rng.uniform(0.3, 1.5), rng.uniform(0.6, 1.4))
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2HSV) * np.float32(factors)  # degrees, 0..1, 0..1
    hsv[..., 0] %= 360
    expected = 255 * cv2.cvtColor(np.minimum(hsv, (360, 1, 1)).astype(np.float32), cv2.COLOR_HSV2BGR)
    difference = np.abs(HsvJitter(factors)(image) - expected)
    assert difference.mean() < 4 and np.quantile(difference, 0.95) < 12


def test_an_image_of_planes_is_the_same_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    planes = planes_of(image)
    np.testing.assert_array_equal(planes, image.transpose(2, 0, 1)[::-1])
    view = as_image(planes)
    np.testing.assert_array_equal(view, image)
    assert np.shares_memory(view, planes) and np.shares_memory(planes_of(view), planes)
    assert interleaved(view).flags.c_contiguous and interleaved(image) is image
    np.testing.assert_array_equal(interleaved(view), image)


@pytest.mark.parametrize("flip", [flip_horizontal, flip_vertical])
def test_flips_of_planes_are_those_of_the_image(flip: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    plain = replace(marked(), image=image)
    of_planes = flip(replace(plain, image=as_image(planes_of(image))))
    np.testing.assert_array_equal(of_planes.image, flip(plain).image)
    assert of_planes.image.strides[2] < 0  # still planes


def test_mixup_lies_between_both_images_and_keeps_all_labels() -> None:
    mixed = mixup_samples(marked(outlined=True), marked((0, 0, 10, 10)), np.random.default_rng(0))
    assert 64 < mixed.image[30, 30, 0] < 192
    assert len(mixed.boxes) == 2
    assert [len(polygon) for polygon in mixed.segments] == [4, 0]


def test_samples_without_outlines_join_to_no_outlines() -> None:
    assert _join_segments([marked(), marked()]) == []


def test_copy_paste_adds_a_mirrored_object_with_its_pixels() -> None:
    sample = marked((4, 24, 24, 36), outlined=True)
    pasted = copy_paste_sample(sample, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(pasted.boxes[:, 1:], [[4, 24, 24, 36], [40, 24, 60, 36]])
    assert (pasted.image[24:36, 40:60] == 255).all()
    assert len(pasted.segments) == 2


def test_copy_paste_does_not_hide_an_object() -> None:
    sample = marked((22, 24, 42, 36), outlined=True)  # its mirror image falls upon itself
    assert len(copy_paste_sample(sample, 1.0, np.random.default_rng(0)).boxes) == 1
