"""Tiles of large images: where they lie, and one box for one object across their borders."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from utils.core.errors import InputError
from utils.core.timing import StageTimer
from utils.inference.predictor import ImageDetections, Predictor, Thresholds
from utils.inference.tiles import SlicedPredictor, merge_tiles, tile_windows

HW = (600, 1000)  # of the image in the hand-made cases
LEFT, RIGHT, WHOLE = (0, 0, 600, 600), (400, 0, 1000, 600), (0, 0, 1000, 600)


def merged(*found: tuple[tuple[int, ...], tuple[float, ...]], iou: float = 0.45, agnostic: bool = False) -> list:
    windows = torch.tensor([window for window, _ in found], dtype=torch.float32).reshape(-1, 4)
    boxes = torch.tensor([box for _, box in found], dtype=torch.float32).reshape(-1, 6)
    return [[round(value, 3) for value in row] for row in merge_tiles(boxes, windows, HW, iou, agnostic).tolist()]


@pytest.mark.parametrize(
    ("hw", "side", "overlap", "windows"),
    [
        ((100, 100), 100, 0.2, [(0, 0, 100, 100)]),
        ((50, 80), 100, 0.2, [(0, 0, 80, 50)]),
        ((100, 180), 100, 0.2, [(0, 0, 100, 100), (80, 0, 180, 100)]),
        ((100, 181), 100, 0.2, [(0, 0, 100, 100), (40, 0, 140, 100), (81, 0, 181, 100)]),
        ((200, 100), 100, 0.0, [(0, 0, 100, 100), (0, 100, 100, 200)]),
    ],
)
def test_where_the_tiles_lie(hw: tuple[int, int], side: int, overlap: float, windows: list) -> None:
    assert tile_windows(hw, side, overlap) == windows


@pytest.mark.parametrize("hw", [(641, 2000), (1300, 1300), (3000, 700)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_every_pixel_and_overlap_enough(hw: tuple[int, int], overlap: float) -> None:
    windows = tile_windows(hw, 640, overlap)
    seen = np.zeros(hw, bool)
    for x1, y1, x2, y2 in windows:
        assert (x2 - x1, y2 - y1) == (640, 640)
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    columns = sorted({x1 for x1, *_ in windows})
    assert all(b - a <= 640 * (1 - overlap) for a, b in pairwise(columns))


def test_an_object_seen_whole_by_two_tiles_is_one_and_keeps_the_better_box() -> None:
    assert merged((LEFT, (450, 100, 550, 200, 0.8, 3)), (RIGHT, (452, 100, 548, 202, 0.9, 3))) == [
        [452, 100, 548, 202, 0.9, 3]
    ]  # fmt: skip


def test_a_part_that_a_border_cuts_off_belongs_to_the_whole() -> None:
    # x 500 to 700: the left tile sees 100 of it, and is surer.
    assert merged((LEFT, (500, 100, 600, 200, 0.9, 3)), (RIGHT, (500, 100, 700, 200, 0.7, 3))) == [
        [500, 100, 700, 200, 0.9, 3]
    ]  # fmt: skip


def test_an_object_longer_than_the_overlap_is_put_together() -> None:
    assert merged((LEFT, (300, 100, 600, 200, 0.6, 3)), (RIGHT, (400, 100, 900, 200, 0.7, 3))) == [
        [300, 100, 900, 200, 0.7, 3]
    ]  # fmt: skip


def test_the_pass_over_the_whole_image_gathers_all_parts() -> None:
    parts = [(LEFT, (300, 100, 600, 200, 0.6, 3)), (RIGHT, (400, 100, 900, 200, 0.7, 3))]
    assert merged(*parts, (WHOLE, (298, 101, 903, 199, 0.5, 3))) == [[298, 101, 903, 199, 0.7, 3]]


def test_a_part_taken_for_something_else_gives_way_to_the_whole() -> None:
    assert merged((LEFT, (500, 100, 600, 200, 0.9, 7)), (RIGHT, (500, 100, 700, 200, 0.7, 3))) == [
        [500, 100, 700, 200, 0.7, 3]
    ]  # fmt: skip


def test_all_readings_of_a_part_give_way_to_the_whole() -> None:
    parts = [(LEFT, (500, 100, 600, 200, 0.9, 7)), (LEFT, (501, 100, 600, 200, 0.8, 3))]
    assert merged(*parts, (RIGHT, (500, 100, 700, 200, 0.7, 3))) == [[500, 100, 700, 200, 0.8, 3]]


@pytest.mark.parametrize(("agnostic", "count"), [(False, 2), (True, 1)])
def test_whole_objects_of_two_classes_are_two_unless_agnostic(agnostic: bool, count: int) -> None:
    found = [(LEFT, (450, 100, 550, 200, 0.8, 3)), (RIGHT, (450, 100, 550, 200, 0.9, 4))]
    assert len(merged(*found, agnostic=agnostic)) == count


def test_neighbours_in_the_overlap_stay_two() -> None:
    assert len(merged((LEFT, (430, 100, 500, 200, 0.8, 3)), (RIGHT, (490, 100, 560, 200, 0.9, 3)))) == 2


def test_boxes_of_one_tile_and_class_are_never_merged() -> None:
    assert len(merged((LEFT, (10, 100, 110, 200, 0.8, 3)), (LEFT, (12, 100, 112, 200, 0.9, 3)))) == 2


def test_the_border_of_the_image_cuts_nothing_off() -> None:
    # Both end at the right of the image, which no other tile continues.
    assert merged((RIGHT, (900, 0, 1000, 50, 0.8, 3)), (WHOLE, (890, 0, 999, 60, 0.6, 3))) == [
        [900, 0, 1000, 50, 0.8, 3]
    ]  # fmt: skip


def test_nothing_found_is_nothing() -> None:
    assert merged() == []


class Spots(Predictor):
    """Finds bright squares of at least 10 x 10 px, instead of a model."""

    def __init__(self) -> None:
        self.names, self.thresholds, self.timer = ["spot"], Thresholds(max_det=100), StageTimer()
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, images: list[np.ndarray]) -> list[ImageDetections]:
        import cv2

        self.shapes.append((len(images), *images[0].shape[:2]))
        found = []
        for image in images:
            _, _, stats, _ = cv2.connectedComponentsWithStats(image[..., 0])
            rows = [[x, y, x + w, y + h, min(0.99, area / 5000), 0] for x, y, w, h, area in stats[1:] if w * h >= 100]
            found.append(ImageDetections(torch.tensor(rows).reshape(-1, 6).float(), self.names, image.shape[:2]))
        return found


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("whole", [True, False])
def test_every_object_of_a_large_image_is_found_once(whole: bool, batch_size: int) -> None:
    image = np.zeros((500, 700, 3), np.uint8)
    expected = [(10, 10, 60, 60), (170, 20, 230, 80), (150, 190, 450, 240), (600, 400, 700, 500), (20, 300, 40, 480)]
    for x1, y1, x2, y2 in expected:
        image[y1:y2, x1:x2] = 255
    predictor = Spots()
    sliced = SlicedPredictor(predictor, 200, 0.2, whole, batch_size)
    (found,) = sliced.predict([image])
    assert sorted(map(tuple, found.boxes[:, :4].int().tolist())) == sorted(expected)
    assert found.hw == (500, 700) and found.boxes[:, 4].tolist() == sorted(found.boxes[:, 4].tolist(), reverse=True)
    assert max(count for count, *_ in predictor.shapes) <= batch_size
    assert ((1, 500, 700) in predictor.shapes or batch_size > 1) is (whole or batch_size > 1)


def test_an_image_that_fits_into_a_tile_is_looked_at_once() -> None:
    predictor = Spots()
    SlicedPredictor(predictor, 200).predict([np.zeros((100, 200, 3), np.uint8)])
    assert predictor.shapes == [(1, 100, 200)]


@pytest.mark.parametrize(("side", "overlap"), [(0, 0.2), (640, 1.0), (640, -0.1)])
def test_impossible_tiles_are_refused(side: int, overlap: float) -> None:
    with pytest.raises(InputError, match="expected 1 or more, and 0 to below 1"):
        SlicedPredictor(Spots(), side, overlap)
