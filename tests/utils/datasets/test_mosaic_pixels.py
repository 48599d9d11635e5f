"""The mosaic made without its canvas, against one written the long way: canvas first, then a warp of all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.config.hyp import Hyp
from utils.datasets.augment.geometry import Warp, WarpRanges, draw_warp
from utils.datasets.augment.mosaic import MosaicLayout, arrange_four, arrange_nine
from utils.datasets.augment.pixels import HsvJitter
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.records import LabelRecord

SIZE = 160
SIZES_HW = ((120, 160), (160, 107), (90, 160), (160, 160), (60, 160), (160, 50), (120, 160), (160, 160), (133, 100))
PLAIN = WarpRanges(translate=0.1, scale=0.5)
TURNED = WarpRanges(degrees=15.0, translate=0.1, scale=0.5, shear=5.0)
TILTED = replace(TURNED, perspective=0.0005)


def soft(hw: tuple[int, int], seed: int) -> np.ndarray:
    """An image without edges, so that half a pixel changes little."""
    small = np.random.default_rng(seed).integers(60, 200, (3, 3, 3), np.uint8)
    return cv2.resize(small, hw[::-1], interpolation=cv2.INTER_LINEAR)


IMAGES = [soft(hw, seed) for seed, hw in enumerate(SIZES_HW)]


def whole_canvas(layout: MosaicLayout, images: Sequence[np.ndarray]) -> np.ndarray:
    """Every image copied to its place, on a canvas large enough for all, of which the middle is cut out."""
    margin = 2 * SIZE
    canvas = np.full((layout.side + 2 * margin, layout.side + 2 * margin, 3), 114, np.uint8)
    for (left, top, width, height), image in zip(layout.tiles.tolist(), images):
        canvas[top + margin : top + margin + height, left + margin : left + margin + width] = image
    return canvas[margin:-margin, margin:-margin]


def long_way(layout: MosaicLayout, warp: Warp, images: Sequence[np.ndarray]) -> np.ndarray:
    """The canvas, warped by the matrix; OpenCV counts from the middle of the first pixel."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ warp.matrix @ half
    canvas = whole_canvas(layout, images)
    return cv2.warpPerspective(canvas, matrix, (SIZE, SIZE), borderValue=(114, 114, 114))


def layouts(seed: int) -> list[tuple[MosaicLayout, np.random.Generator]]:
    rng = np.random.default_rng(seed)
    return [(arrange_four(SIZES_HW[:4], SIZE, rng), rng), (arrange_nine(SIZES_HW, SIZE, rng), rng)]


def far_from_edges(layout: MosaicLayout, warp: Warp) -> np.ndarray:
    """Pixels of the output that do not lie within two pixels of an edge of an image or of the canvas."""
    lone = [np.full((h, w, 3), 20 * n, np.uint8) for n, (h, w) in enumerate(SIZES_HW, start=1)]
    numbers = long_way(layout, warp, lone)[..., 0]
    kernel = np.ones((5, 5), np.uint8)
    return cv2.dilate(numbers, kernel) == cv2.erode(numbers, kernel)


@pytest.mark.parametrize("seed", range(12))
def test_an_enlarged_mosaic_is_that_of_the_long_way_but_at_the_seams(seed: int) -> None:
    for layout, rng in layouts(seed):
        warp = draw_warp((2 * SIZE, 2 * SIZE), (SIZE, SIZE), PLAIN, rng)
        ours = layout.enlarge(warp, SIZES_HW).paint(lambda tile: IMAGES[tile])
        difference = np.abs(ours.astype(int) - long_way(layout, warp, IMAGES)).max(-1)
        inside = far_from_edges(layout, warp)
        assert inside.mean() > 0.7
        assert difference[inside].max() <= 6  # half a pixel on the slopes of the images
        assert difference[inside].mean() < 1


@pytest.mark.parametrize("ranges", [TURNED, TILTED, PLAIN], ids=["turned", "tilted", "plain"])
@pytest.mark.parametrize("seed", range(6))
def test_the_needed_part_of_the_canvas_gives_what_the_whole_gives(seed: int, ranges: WarpRanges) -> None:
    for layout, rng in layouts(seed):
        warp = draw_warp((2 * SIZE, 2 * SIZE), (SIZE, SIZE), ranges, rng)
        window = warp.source_window()
        part = layout.paint(window, lambda tile: IMAGES[tile])
        difference = np.abs(warp.apply(part, window[:2]).astype(int) - long_way(layout, warp, IMAGES))
        # The position of a pixel is rounded to 1/32 by some kernels: a step of that size at a seam.
        assert np.quantile(difference, 0.99) <= 2
        assert difference.mean() < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_boxes_follow_the_pieces_to_which_pixels_go(seed: int) -> None:
    for layout, rng in layouts(seed):
        warp = draw_warp((2 * SIZE, 2 * SIZE), (SIZE, SIZE), PLAIN, rng)
        plan = layout.enlarge(warp, SIZES_HW)
        count = len(layout.tiles)
        whole = layout.place_boxes([np.array([[n, 0, 0, 1, 1]], np.float32) for n in range(count)])
        boxes, _ = warp.move_labels(whole, (), plan.scale_shift)
        targets = {piece.tile: piece.target for piece in plan.parts}
        for number, *box in boxes.tolist():
            np.testing.assert_allclose(box, targets[int(number)], atol=1e-3)
        exact, _ = warp.move_labels(whole)
        both = set(boxes[:, 0]) & set(exact[:, 0])
        ours, theirs = ([row for row in rows.tolist() if row[0] in both] for rows in (boxes, exact))
        np.testing.assert_allclose(ours, theirs, atol=0.51)


@pytest.mark.parametrize("ranges", [PLAIN, TURNED], ids=["plain", "turned"])
def test_outlines_that_are_boxes_give_the_boxes(ranges: WarpRanges) -> None:
    turned = ranges is TURNED
    for seed in range(6):
        for layout, rng in layouts(seed):
            warp = draw_warp((2 * SIZE, 2 * SIZE), (SIZE, SIZE), ranges, rng)
            count = len(layout.tiles)
            rows = layout.place_boxes([np.array([[n, 0.1, 0.2, 0.8, 0.9]], np.float32) for n in range(count)])
            outlines = [row[[1, 2, 3, 2, 3, 4, 1, 4]].reshape(4, 2) for row in rows]
            own = None if turned else layout.enlarge(warp, SIZES_HW).scale_shift
            boxes, segments = warp.move_labels(rows, outlines, own)
            expected, _ = warp.move_labels(rows, (), own)
            assert len(segments) == len(boxes)
            by_class = {row[0]: row[1:] for row in expected.tolist()}
            for (number, *box), outline in zip(boxes.tolist(), segments):
                assert np.all(outline.min(0) <= np.array(box[:2]) + 1)  # the outline is not cut, the box is
                if number in by_class:
                    # A turned outline reaches the same corners as the box unless these are out of sight.
                    inner, outer = np.array(box), np.array(by_class[number])
                    assert (inner[:2] >= outer[:2] - 1).all() and (inner[2:] <= outer[2:] + 1).all()
                    if not turned:
                        np.testing.assert_allclose(inner, outer, atol=1)


def test_only_visible_tiles_are_read() -> None:
    tiles = [[40, 200, 160, 120], [200, 200, 107, 160], [0, 0, 160, 70], [280, 0, 160, 160]]
    layout = MosaicLayout(2 * SIZE, np.array(tiles))
    half = Warp((320, 320), (SIZE, SIZE), np.array([[1.0, 0, -80], [0, 1, -80], [0, 0, 1]]), (1, 1), (80, 80, 160, 160))
    images = [soft((height, width), n) for n, (_, _, width, height) in enumerate(tiles)]
    expected = whole_canvas(layout, images)[80:240, 80:240]
    for paint in (layout.enlarge(half, [p.shape[:2] for p in images]).paint, partial(layout.paint, (80, 80, 160, 160))):
        asked: list[int] = []
        np.testing.assert_array_equal(paint(lambda tile: (asked.append(tile), images[tile])[1]), expected)  # noqa: B023
        assert asked == [0, 1]


def test_colours_change_alike_before_and_after_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    jitter = HsvJitter((1.01, 1.2, 0.8))
    for seed in range(6):
        for layout, rng in layouts(seed):
            warp = draw_warp((2 * SIZE, 2 * SIZE), (SIZE, SIZE), PLAIN, rng)
            plan = layout.enlarge(warp, SIZES_HW)
            ours = plan.paint(lambda tile: IMAGES[tile], jitter)
            after = jitter(plan.paint(lambda tile: IMAGES[tile]))
            difference = np.abs(ours.astype(int) - after)
            assert np.quantile(difference, 0.99) <= 4 and difference.mean() < 1


@pytest.mark.parametrize("seed", range(6))
def test_small_images_are_enlarged_in_one_step_and_boxes_stay_on_them(seed: int) -> None:
    small_hw = [(round(0.6 * h), round(0.6 * w)) for h, w in SIZES_HW]
    small = [cv2.resize(p, hw[::-1], interpolation=cv2.INTER_AREA) for p, hw in zip(IMAGES, small_hw)]
    for layout, rng in layouts(seed):
        warp = draw_warp((2 * SIZE, 2 * SIZE), (SIZE, SIZE), PLAIN, rng)
        count = len(layout.tiles)
        plan = layout.enlarge(warp, small_hw[:count])
        difference = np.abs(plan.paint(lambda tile: small[tile]).astype(int) - long_way(layout, warp, IMAGES)).max(-1)
        inside = far_from_edges(layout, warp)
        assert difference[inside].mean() < 2 and np.quantile(difference[inside], 0.99) <= 10
        # A box over the middle half of each image: where it lies in the small one and so in the output.
        rows = [np.array([[n, 0.25, 0.25, 0.75, 0.75]], np.float32) for n in range(count)]
        boxes = layout.place_boxes(rows)
        moved = boxes[:, 1:].reshape(-1, 2, 2) * plan.scale_shift[:, :1] + plan.scale_shift[:, 1:]
        exact, _ = warp.move_labels(boxes)
        for piece in plan.parts:
            height, width = small_hw[piece.tile]
            (x1, y1, x2, y2), (left, top, right, bottom) = piece.source, piece.target
            zoom = np.array([(right - left) / (x2 - x1), (bottom - top) / (y2 - y1)])
            corners = np.array([[0.25, 0.25], [0.75, 0.75]]) * (width, height)
            expected = (corners - (x1, y1)) * zoom + (left, top)
            if (boxes[piece.tile, 1:] % (2 * SIZE) > 0).all():  # not clipped to the canvas
                np.testing.assert_allclose(moved[piece.tile], expected, atol=1e-3)
        assert len(exact) <= count


def test_a_turned_mosaic_is_not_enlarged() -> None:
    layout, rng = layouts(0)[0]
    with pytest.raises(ValueError, match="turns or tilts"):
        layout.enlarge(draw_warp((320, 320), (SIZE, SIZE), TURNED, rng), SIZES_HW)


# Statistics -----------------------------------------------------------------------------------------------------------


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    wh = rng.uniform(0.03, 0.4, (count, 2))
    centre = wh / 2 + rng.uniform(0, 1, (count, 2)) * (1 - wh)
    return np.concatenate((np.zeros((count, 1)), centre, wh), 1).astype(np.float32)


def plain_mosaic_boxes(records: Sequence[LabelRecord], rng: np.random.Generator) -> np.ndarray:
    """Boxes [n, 4] in the output, from the definition: nothing rounded, one random number after the other."""
    meet = rng.uniform(SIZE / 2, 3 * SIZE / 2, 2)
    zoom, at = rng.uniform(0.5, 1.5), rng.uniform(0.4, 0.6, 2) * SIZE
    found = []
    for place in range(4):
        record = records[int(rng.integers(len(records)))]
        wh = np.array(record.hw[::-1]) * SIZE / max(record.hw)
        corner = meet - wh * (1 - np.array([place % 2, place // 2]))
        centre, half = record.boxes[:, 1:3], record.boxes[:, 3:5] / 2
        low, high = (corner + wh * (centre + side * half) for side in (-1, 1))
        low, high = low.clip(0, 2 * SIZE), high.clip(0, 2 * SIZE)
        area = (high - low).prod(1) * zoom**2
        low, high = (((xy - SIZE) * zoom + at).clip(0, SIZE) for xy in (low, high))
        left = high - low
        keep = (left.min(1) > 2) & (left.prod(1) > 0.1 * area) & (left.max(1) < 100 * left.min(1))
        found.append(np.concatenate((low, high), 1)[keep])
    return np.concatenate(found)


def summary(per_mosaic: Sequence[np.ndarray]) -> np.ndarray:
    """[mosaics, 6] number of boxes, and means of x, y, width, height and area root; nan without boxes."""
    rows = []
    for boxes in per_mosaic:
        wh = boxes[:, 2:] - boxes[:, :2]
        columns = (*((boxes[:, :2] + boxes[:, 2:]) / 2).T, *wh.T, np.sqrt(wh.prod(1)))
        rows.append([len(boxes), *(column.mean() if len(boxes) else np.nan for column in columns)])
    return np.array(rows)


def test_boxes_are_as_many_as_large_and_where_the_definition_has_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    records = []
    for n, hw in enumerate(SIZES_HW):
        path = tmp_path / f"{n}.png"
        cv2.imwrite(str(path), np.zeros((*hw, 3), np.uint8))
        records.append(LabelRecord(path, None, hw, random_boxes(rng, 12)))
    hyp = Hyp(hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, fliplr=0.0)
    dataset = DetectionDataset(records, SIZE, augment=True, hyp=hyp, cache_images="ram")
    ours = []
    for epoch in range(60):
        for index in range(len(records)):
            x, y, w, h = dataset[(epoch, index)].targets[:, 2:].numpy().T * SIZE
            ours.append(np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1))
    theirs = [plain_mosaic_boxes(records, rng) for _ in range(600)]
    for first, second in zip(summary(ours).T, summary(theirs).T):
        first, second = first[np.isfinite(first)], second[np.isfinite(second)]
        error = np.sqrt(first.var() / len(first) + second.var() / len(second))
        assert abs(first.mean() - second.mean()) < 3.5 * error
        # Not only the means: the largest gap between both distributions (Kolmogorov and Smirnov, p = 0.001).
        both = np.sort(np.concatenate((first, second)))
        gap = np.abs(np.searchsorted(np.sort(first), both, "right") / len(first)
                     - np.searchsorted(np.sort(second), both, "right") / len(second)).max()  # fmt: skip
        assert gap < 1.95 * np.sqrt(1 / len(first) + 1 / len(second))
