"""The mosaic: where images, boxes and outlines lie on the canvas."""

from __future__ import annotations

import numpy as np
import pytest

from utils.datasets.augment.mosaic import arrange_four

SIZES_HW = ((64, 64), (40, 64), (64, 50), (33, 47))
WHOLE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def mosaic(sizes_hw: tuple[tuple[int, int], ...], seed: int, outlined: int = -1) -> tuple[np.ndarray, ...]:
    """Canvas, boxes and outlines of four images of one shade each, with a box of that class over all of each."""
    layout = arrange_four(sizes_hw, 64, np.random.default_rng(seed))
    canvas = layout.paint((0, 0, 128, 128), lambda n: np.full((*sizes_hw[n], 3), 10 * n + 10, np.uint8))
    boxes = [np.array([[10 * n + 10, 0, 0, 1, 1]], np.float32) for n in range(4)]
    segments = layout.place_segments([[WHOLE] if n == outlined else [] for n in range(4)], boxes)
    return canvas, layout.place_boxes(boxes), segments


@pytest.mark.parametrize("seed", range(8))
def test_every_box_covers_exactly_the_visible_part_of_its_image(seed: int) -> None:
    canvas, boxes, _ = mosaic(SIZES_HW, seed)
    assert canvas.shape == (128, 128, 3)
    for shade, x1, y1, x2, y2 in boxes.round().astype(int).tolist():
        rows, columns = np.nonzero(canvas[..., 0] == shade)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)


def test_the_images_meet_in_the_middle_half_of_the_canvas() -> None:
    for seed in range(20):
        _, boxes, _ = mosaic(((64, 64),) * 4, seed)
        x, y = boxes[0, 3:]  # the lower right corner of the first is the upper left one of the fourth
        assert boxes[3, 1:3].tolist() == [x, y]
        assert 32 <= x <= 96 and 32 <= y <= 96


def test_what_no_image_covers_is_grey() -> None:
    canvas, _, _ = mosaic(((8, 8),) * 4, 0)
    assert (canvas == 114).all(-1).sum() == 128 * 128 - 4 * 64


def test_outlines_move_with_their_boxes_and_rows_without_one_stay_without() -> None:
    _, boxes, segments = mosaic(((64, 64),) * 4, 1, outlined=1)
    assert [len(polygon) for polygon in segments] == [0, 4, 0, 0]
    np.testing.assert_array_equal([*segments[1].min(0), *segments[1].max(0)], boxes[1, 1:])


def test_images_without_objects_make_a_mosaic_without_boxes() -> None:
    layout = arrange_four(SIZES_HW, 64, np.random.default_rng(0))
    assert layout.place_boxes([np.zeros((0, 5), np.float32)] * 4).shape == (0, 5)
    assert layout.place_segments([[]] * 4, [np.zeros((0, 5), np.float32)] * 4) == []


def test_a_mosaic_of_three_is_refused() -> None:
    with pytest.raises(ValueError, match="4 samples, not 3"):
        arrange_four(SIZES_HW[:3], 64, np.random.default_rng(0))
