"""The mosaic: where images, boxes and outlines land."""

from __future__ import annotations

import numpy as np
import pytest

from utils.core.image import LetterboxInfo
from utils.datasets.augment import Sample
from utils.datasets.mosaic import mosaic4

INFO = LetterboxInfo((64, 64), (1.0, 1.0), (0.0, 0.0))


def tile(shade: int, hw: tuple[int, int] = (64, 64), outlined: bool = False) -> Sample:
    """An image of one shade with a box over all of it, the class naming the shade."""
    height, width = hw
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    boxes = np.array([[shade, 0, 0, width, height]], np.float32)
    return Sample(np.full((height, width, 3), shade, np.uint8), boxes, [corners] if outlined else [], f"{shade}", INFO)


@pytest.mark.parametrize("seed", range(8))
def test_every_box_covers_exactly_the_visible_part_of_its_image(seed: int) -> None:
    tiles = [tile(10), tile(20, (40, 64)), tile(30, (64, 50)), tile(40, (33, 47))]
    canvas = mosaic4(tiles, 64, np.random.default_rng(seed))
    assert canvas.image.shape == (128, 128, 3)
    for shade, x1, y1, x2, y2 in canvas.boxes.astype(int).tolist():
        rows, columns = np.nonzero(canvas.image[..., 0] == shade)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)


def test_the_images_meet_in_the_middle_half_of_the_canvas() -> None:
    for seed in range(20):
        boxes = mosaic4([tile(s) for s in (10, 20, 30, 40)], 64, np.random.default_rng(seed)).boxes
        x, y = boxes[0, 3:]  # the lower right corner of the first is the upper left one of the fourth
        assert boxes[3, 1:3].tolist() == [x, y]
        assert 32 <= x <= 96 and 32 <= y <= 96


def test_what_no_image_covers_is_grey() -> None:
    canvas = mosaic4([tile(s, (8, 8)) for s in (10, 20, 30, 40)], 64, np.random.default_rng(0))
    assert (canvas.image == 114).all(-1).sum() == 128 * 128 - 4 * 64


def test_outlines_move_with_their_boxes_and_rows_without_one_stay_without() -> None:
    canvas = mosaic4([tile(10), tile(20, outlined=True), tile(30), tile(40)], 64, np.random.default_rng(1))
    assert [len(polygon) for polygon in canvas.segments] == [0, 4, 0, 0]
    polygon = canvas.segments[1]
    np.testing.assert_array_equal([*polygon.min(0), *polygon.max(0)], canvas.boxes[1, 1:])


def test_images_without_objects_make_a_mosaic_without_boxes() -> None:
    bare = Sample(tile(10).image, np.zeros((0, 5), np.float32), [], "", INFO)
    assert mosaic4([bare] * 4, 64, np.random.default_rng(0)).boxes.shape == (0, 5)


def test_a_mosaic_of_three_is_refused() -> None:
    with pytest.raises(ValueError, match="4 samples, not 3"):
        mosaic4([tile(10)] * 3, 64, np.random.default_rng(0))
