"""Detection in tiles of large images: small objects keep their pixels, objects cut by a tile border are merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.inference.predictor import ImageDetections, Predictor

_EDGE_PX = 2.0  # a box that ends so close to the border of its tile counts as cut by it
_INSIDE = 0.8  # a cut box, of which more than this share lies inside another of its class, is a part of that
_MIN_SHARE = 0.1  # boxes of two tiles are compared if both tiles cover this share of the smaller box


def tile_windows(hw: tuple[int, int], side: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """Return x1 y1 x2 y2 of tiles that cover an image, row by row.

    Args:
        hw: height and width of the image in pixels.
        side: of a tile in pixels; smaller images have smaller tiles.
        overlap: minimum share of its side that a tile has in common with the next, 0 to below 1. The tiles are
            spread evenly, so that the last ones end at the border of the image.
    """

    def starts(length: int) -> list[int]:
        step = max(1, int(side * (1 - overlap)))
        gaps = max(0, -(-(length - side) // step))  # rounded up
        return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps else [0]

    height, width = hw
    return [(x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)]


def merge_tiles(boxes: Tensor, windows: Tensor, hw: tuple[int, int], iou: float, agnostic: bool = False) -> Tensor:
    """Merge the boxes of several tiles of an image into one row for each object.

    Boxes of different tiles are clipped to the area that both tiles cover, and are one object if the clipped boxes
    overlap by more than ``iou``. The box that no tile border cuts is kept, of several such boxes the most confident;
    if a border cuts all of them, the most confident one is extended to the others. The class of a cut box is
    unreliable, so it is not compared. Boxes of one tile and class are never merged: NMS has kept both.

    Args:
        boxes: [n, 6] x1 y1 x2 y2 in pixels of the image, confidence, class.
        windows: [n, 4] the tile of each box.
        hw: height and width of the image.
        iou: IoU above which two clipped boxes are one object.
        agnostic: boxes of different classes can be one object as well.

    Returns:
        [k, 6], the most confident first.
    """
    boxes, windows = _sorted(boxes, windows)
    cut = _cut_sides(boxes, windows, hw)  # [n, 4] bool
    parts = cut.any(1)
    order = parts.int().argsort(stable=True)  # whole ones first
    boxes, windows, cut, parts = boxes[order], windows[order], cut[order], parts[order]
    origins = torch.cat([windows, boxes[:, 5:6]], 1)  # tile and class
    pending = torch.ones(len(boxes), dtype=torch.bool)
    kept = []
    for best in range(len(boxes)):
        if not pending[best]:
            continue
        pending[best] = False
        kept.append(best)
        alike = boxes[:, 5] == boxes[best, 5]
        # Each member may extend the object and so reach further boxes, as with a long object in four tiles.
        members = [best]
        for member in members:
            same = _same_object(boxes, windows, member, iou) & (alike | parts | agnostic)
            same |= alike & parts & (_share_inside(boxes, member) > _INSIDE)
            same &= pending & ~(origins[:, None] == origins[members][None]).all(2).any(1)
            for other in _first_of_each(same.nonzero().flatten().tolist(), origins):
                pending[other] = False
                members.append(other)
        _extend(boxes, cut, members)
        boxes[best, 4] = boxes[[i for i in members if alike[i]], 4].max()
    return _sorted(boxes[kept], windows[kept])[0]


def _sorted(boxes: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    order = boxes[:, 4].argsort(descending=True, stable=True)
    return boxes[order], windows[order]


def _share_inside(boxes: Tensor, one: int) -> Tensor:
    """Return [n]: the share of each box that lies inside box ``one``."""
    return _area(_intersection(boxes, boxes[one])) / _area(boxes).clamp(min=1e-9)


def _cut_sides(boxes: Tensor, windows: Tensor, hw: tuple[int, int]) -> Tensor:
    """Return [n, 4] bool: whether a border of the tile, and not of the image, cuts each side of each box."""
    height, width = hw
    inner = windows != windows.new_tensor([0, 0, width, height])
    return inner & ((boxes[:, :4] - windows).abs() <= _EDGE_PX)


def _same_object(boxes: Tensor, windows: Tensor, one: int, iou: float) -> Tensor:
    """Return [n] bool: whether each box and box ``one`` overlap enough in the area that both tiles cover."""
    shared = _intersection(windows, windows[one])
    clipped_one, clipped = _intersection(shared, boxes[one]), _intersection(shared, boxes)
    area_one, area = _area(clipped_one), _area(clipped)
    both = _area(_intersection(clipped_one, clipped))
    overlap = both / (area_one + area - both).clamp(min=1e-9)
    least = _MIN_SHARE * torch.minimum(_area(boxes), _area(boxes[one : one + 1]))
    return (overlap > iou) & (torch.minimum(area_one, area) >= least)


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    """Return the common part [n, 4] of boxes [n, 4+] or [4+], with zero area where they are apart."""
    low = torch.maximum(first[..., :2], second[..., :2])
    return torch.cat([low, torch.minimum(first[..., 2:4], second[..., 2:4]).maximum(low)], -1)


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:4] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def _first_of_each(indices: Sequence[int], origins: Tensor) -> Iterator[int]:
    """Yield the first index of each tile and class."""
    seen: set[tuple[float, ...]] = set()
    for index in indices:
        origin = tuple(origins[index].tolist())
        if origin not in seen:
            seen.add(origin)
            yield index


def _extend(boxes: Tensor, cut: Tensor, members: Sequence[int]) -> None:
    """Move the cut sides of the first member outward, as far as the other members reach."""
    best = members[0]
    for side, outward in enumerate((torch.min, torch.min, torch.max, torch.max)):
        if cut[best, side]:
            boxes[best, side] = outward(boxes[members, side])


class SlicedPredictor:
    """Detection tile by tile; an image that fits into one tile is predicted whole.

    Args:
        predictor: for the tiles.
        side: of a tile in pixels of the image.
        overlap: share of its side that a tile has in common with the next.
        whole: predict the whole image as well, for objects larger than a tile.
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

    def predict(self, images: Sequence[np.ndarray]) -> list[ImageDetections]:
        """Return the detections of each image, HWC BGR uint8."""
        return [self._one(image) for image in images]

    def _one(self, image: np.ndarray) -> ImageDetections:
        hw = (image.shape[0], image.shape[1])
        windows = tile_windows(hw, self.side, self.overlap)
        if len(windows) == 1:
            return self.predictor(image)
        if self.whole:
            windows.append((0, 0, hw[1], hw[0]))
        boxes, places = [], []
        for begin in range(0, len(windows), self.batch_size):
            chosen = windows[begin : begin + self.batch_size]
            predicted = self.predictor.predict([image[y1:y2, x1:x2] for x1, y1, x2, y2 in chosen])
            for window, detections in zip(chosen, predicted):
                rows = detections.boxes.clone()
                rows[:, :4] += rows.new_tensor([window[0], window[1], window[0], window[1]])
                boxes.append(rows)
                places.append(rows.new_tensor(window).expand(len(rows), 4))
        limits = self.predictor.thresholds
        merged = merge_tiles(torch.cat(boxes), torch.cat(places), hw, limits.iou, limits.agnostic)
        return ImageDetections(merged[: limits.max_det], self.predictor.names, hw)
