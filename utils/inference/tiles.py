"""Large images in tiles: small objects keep their pixels, and what a border cuts is put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.inference.predictor import Detections, Predictor

_EDGE_PX = 2.0  # a box that ends so close to the border of its tile is taken to be cut by it
_INSIDE = 0.8  # a cut off part of a box, of which so much lies inside another of its class, is a part of that
_LEAST_SHARE = 0.1  # of the smaller box that two tiles must both see, to be compared at all


def tile_windows(hw: tuple[int, int], side: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """x1 y1 x2 y2 of tiles that cover an image, row by row.

    Args:
        hw: height and width of the image in pixels.
        side: of a tile in pixels; an image that is smaller makes smaller tiles.
        overlap: the least share of its side that a tile has in common with the next, 0 to below 1. The tiles are
            spread evenly, so that the last ones end at the border of the image.
    """

    def starts(length: int) -> list[int]:
        step = max(1, int(side * (1 - overlap)))
        gaps = max(0, -(-(length - side) // step))  # rounded up
        return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps else [0]

    height, width = hw
    return [
        (x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)
    ]  # fmt: skip


def merge_tiles(boxes: Tensor, windows: Tensor, hw: tuple[int, int], iou: float, agnostic: bool = False) -> Tensor:
    """One row for each object among the boxes of several tiles of an image.

    Two tiles can only disagree about what both of them see. So boxes of different tiles are cut down to the area that
    both tiles cover, and are one object if what is left overlaps by more than ``iou``. Of one object that box stays
    which no border cuts off, and of several such the most confident; where a border cuts off all, it is made longer by
    the others. What kind of thing a cut off part is cannot be told well, so its class does not count. Boxes of one tile
    and class are never merged: the suppression has already decided about them.

    Args:
        boxes: [n, 6] x1 y1 x2 y2 in pixels of the image, confidence, class.
        windows: [n, 4] the tile that each box was found in.
        hw: height and width of the image.
        iou: the limit.
        agnostic: boxes of different classes are one object as well.

    Returns:
        [k, 6], the most confident first.
    """
    boxes, windows = _sorted(boxes, windows)
    cut = _cut_sides(boxes, windows, hw)  # [n, 4] bool
    parts = cut.any(1)
    order = parts.int().argsort(stable=True)  # whole ones first
    boxes, windows, cut, parts = boxes[order], windows[order], cut[order], parts[order]
    origins = torch.cat([windows, boxes[:, 5:6]], 1)  # tile and class
    left = torch.ones(len(boxes), dtype=torch.bool)
    kept = []
    for best in range(len(boxes)):
        if not left[best]:
            continue
        left[best] = False
        kept.append(best)
        alike = boxes[:, 5] == boxes[best, 5]
        # Each box that joins may make the object longer and so meet further ones, as a long object in four tiles does.
        members = [best]
        for member in members:
            same = _same_object(boxes, windows, member, iou) & (alike | parts | agnostic)
            same |= alike & parts & (_share_inside(boxes, member) > _INSIDE)
            same &= left & ~(origins[:, None] == origins[members][None]).all(2).any(1)
            for other in _first_of_each(same.nonzero().flatten().tolist(), origins):
                left[other] = False
                members.append(other)
        _lengthen(boxes, cut, members)
        boxes[best, 4] = boxes[[i for i in members if alike[i]], 4].max()
    return _sorted(boxes[kept], windows[kept])[0]


def _sorted(boxes: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    order = boxes[:, 4].argsort(descending=True, stable=True)
    return boxes[order], windows[order]


def _share_inside(boxes: Tensor, one: int) -> Tensor:
    """[n] how much of each box lies inside box ``one``."""
    return _area(_clipped(boxes[:, :4], boxes[one, :4].expand(len(boxes), 4))) / _area(boxes).clamp(min=1e-9)


def _cut_sides(boxes: Tensor, windows: Tensor, hw: tuple[int, int]) -> Tensor:
    """[n, 4] whether a border of the tile, and not of the image, cuts off each side of each box."""
    height, width = hw
    inner = windows != windows.new_tensor([0, 0, width, height])
    return inner & ((boxes[:, :4] - windows).abs() <= _EDGE_PX)


def _same_object(boxes: Tensor, windows: Tensor, one: int, iou: float) -> Tensor:
    """[n] whether each box, and box ``one``, agree about the area that their two tiles cover."""
    shared = torch.cat(
        [torch.maximum(windows[:, :2], windows[one, :2]), torch.minimum(windows[:, 2:], windows[one, 2:])], 1
    )  # [n, 4]
    mine, theirs = _clipped(boxes[one, :4].expand_as(shared), shared), _clipped(boxes[:, :4], shared)
    area_mine, area_theirs = _area(mine), _area(theirs)
    both = _area(
        torch.cat([torch.maximum(mine[:, :2], theirs[:, :2]), torch.minimum(mine[:, 2:], theirs[:, 2:])], 1)
    )  # fmt: skip
    least = _LEAST_SHARE * torch.minimum(_area(boxes[:, :4]), _area(boxes[one : one + 1, :4]))
    overlap = both / (area_mine + area_theirs - both).clamp(min=1e-9)
    return (overlap > iou) & (torch.minimum(area_mine, area_theirs) >= least)


def _clipped(boxes: Tensor, areas: Tensor) -> Tensor:
    """Each box [n, 4] cut down to its area [n, 4]; without extent where they are apart."""
    low = torch.maximum(boxes[:, :2], areas[:, :2])
    return torch.cat([low, torch.minimum(boxes[:, 2:], areas[:, 2:]).maximum(low)], 1)


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:4] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def _first_of_each(indices: Sequence[int], origins: Tensor) -> Iterator[int]:
    seen: set[tuple[float, ...]] = set()
    for index in indices:
        origin = tuple(origins[index].tolist())
        if origin not in seen:
            seen.add(origin)
            yield index


def _lengthen(boxes: Tensor, cut: Tensor, members: Sequence[int]) -> None:
    """Move the sides of the first member that a border cuts off outward, as far as the others reach."""
    best = members[0]
    for side, outward in enumerate((torch.min, torch.min, torch.max, torch.max)):
        if cut[best, side]:
            boxes[best, side] = outward(boxes[members, side])


class SlicedPredictor:
    """Finds objects in images tile by tile. Images that fit into one tile are looked at whole.

    Args:
        predictor: for the tiles.
        side: of a tile in pixels of the image.
        overlap: share of its side that a tile has in common with the next.
        whole: look at the whole image as well, for objects larger than a tile.
        batch_size: tiles that go through the model together.

    Raises:
        InputError: a side or overlap that makes no tiles.
    """

    def __init__(
        self, predictor: Predictor, side: int = 640, overlap: float = 0.2, whole: bool = True, batch_size: int = 1
    ) -> None:
        if side < 1 or not 0 <= overlap < 1:
            raise InputError(f"tiles of {side} pixels that overlap by {overlap}: expected 1 or more, and 0 to below 1")
        self.predictor, self.side, self.overlap, self.whole = predictor, side, overlap, whole
        self.batch_size, self.timer = batch_size, predictor.timer

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each image, HWC BGR uint8."""
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> Detections:
        hw = (image.shape[0], image.shape[1])
        windows = tile_windows(hw, self.side, self.overlap)
        if len(windows) == 1:
            return self.predictor(image)
        if self.whole:
            windows.append((0, 0, hw[1], hw[0]))
        boxes, places = [], []
        for begin in range(0, len(windows), self.batch_size):
            chosen = windows[begin : begin + self.batch_size]
            found = self.predictor.predict([image[y1:y2, x1:x2] for x1, y1, x2, y2 in chosen])
            for window, detections in zip(chosen, found):
                rows = detections.boxes.clone()
                rows[:, :4] += rows.new_tensor([window[0], window[1], window[0], window[1]])
                boxes.append(rows)
                places.append(rows.new_tensor(window).expand(len(rows), 4))
        predictor = self.predictor
        merged = merge_tiles(torch.cat(boxes), torch.cat(places), hw, predictor.iou, predictor.agnostic)
        return Detections(merged[: predictor.max_det], predictor.names, hw)
