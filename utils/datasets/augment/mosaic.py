"""Mosaics: several images on one canvas. Where they lie, and the pixels of a part of the canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from utils.datasets.augment.geometry import GREY, Warp
from utils.datasets.augment.pixels import HsvJitter, as_image

ReadTile = Callable[[int], np.ndarray]  # number of a tile -> its image, HWC BGR uint8


class TilePart(NamedTuple):
    """The visible part of a tile: x1, y1, x2, y2 in pixels of its image and of the output."""

    tile: int
    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]


@dataclass(frozen=True)
class Enlargement:
    """What becomes of the tiles when a part of the canvas is enlarged (or reduced) to an image of ``out_hw``.

    Attributes:
        out_hw: height and width of the output.
        parts: the visible parts of the tiles.
        scale_shift: [t, 2, 2] for every tile (scale, shift) of x and y: output = canvas * scale + shift.
    """

    out_hw: tuple[int, int]
    parts: list[TilePart]
    scale_shift: np.ndarray

    def paint(self, read: ReadTile, jitter: HsvJitter | None = None) -> np.ndarray:
        """Return the output [H, W, 3], a view of planes, grey where no tile is; only visible tiles are read.

        Colors are changed before a tile is enlarged or after it is reduced, whichever means fewer pixels.
        """
        planes = np.empty((3, *self.out_hw), np.uint8)
        covered = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (part.target for part in self.parts))
        if covered < self.out_hw[0] * self.out_hw[1]:
            planes.fill(GREY[0] if jitter is None else jitter.grey(GREY[0]))
        for tile, (x1, y1, x2, y2), (left, top, right, bottom) in self.parts:
            pixels, target = read(tile)[y1:y2, x1:x2], planes[:, top:bottom, left:right]
            size_wh = right - left, bottom - top
            if pixels.size < target.size:
                small = np.empty((3, *pixels.shape[:2]), np.uint8)
                _split_planes(pixels, small, jitter)
                for plane, out in zip(small, target):
                    cv2.resize(plane, size_wh, dst=out)
            else:
                same = pixels.shape[:2] == target.shape[1:]
                _split_planes(pixels if same else cv2.resize(pixels, size_wh), target, jitter)
        return as_image(planes)


def _split_planes(image: np.ndarray, out: np.ndarray, jitter: HsvJitter | None) -> None:
    """Write a BGR image, its colors changed, to ``out`` [3, H, W], red first."""
    if jitter is None:
        cv2.split(image, list(out[::-1]))
    else:
        jitter.split(image, out)


_Span = tuple[int, int, int, int, float, float]


def _span(origin: int, extent: int, zoom: float, low: int, length: int, stored: int, side: int) -> _Span | None:
    """Return the visible part of a tile along one axis.

    Args:
        origin: where the window begins on the canvas.
        extent: length of the window.
        zoom: by which the window is enlarged.
        low: where the tile begins on the canvas.
        length: of the tile on the canvas.
        stored: length of the image of the tile, in its own pixels.
        side: of the canvas.

    Returns:
        First and last pixel of the image, first and last pixel of the output, and the scale and shift from canvas to
        output; None where nothing is visible.
    """
    begin, end = max(low, origin, 0), min(low + length, origin + extent, side)
    if begin >= end:
        return None
    start, stop = round((begin - origin) * zoom), round((end - origin) * zoom)
    density = stored / length  # pixels of the image per pixel of the canvas
    first, last = round((begin - low) * density), round((end - low) * density)
    if last <= first or stop <= start:
        return None
    scale = density * (stop - start) / (last - first)  # that of the rounded edges
    return first, last, start, stop, scale, start - (low + first / density) * scale


@dataclass(frozen=True)
class MosaicLayout:
    """Tiles [t, 4] (left, top, width, height) on a square canvas of ``side`` pixels; they do not overlap.

    A tile may reach past the canvas: pixels outside are cut off, boxes and polygons are clipped.
    """

    side: int
    tiles: np.ndarray

    def paint(self, window: tuple[int, int, int, int], read: ReadTile) -> np.ndarray:
        """Return the pixels [height, width, 3] of a part of the canvas, grey where no tile is.

        Args:
            window: x, y, width and height of the part.
            read: called only for tiles that are visible.
        """
        x, y, width, height = window
        visible = []  # number and corner of a tile, corners of its visible part
        for number, (left, top, tile_w, tile_h) in enumerate(self.tiles.tolist()):
            x1, y1 = max(left, x, 0), max(top, y, 0)
            x2, y2 = min(left + tile_w, x + width, self.side), min(top + tile_h, y + height, self.side)
            if x1 < x2 and y1 < y2:
                visible.append((number, left, top, x1, y1, x2, y2))
        covered = sum((x2 - x1) * (y2 - y1) for *_, x1, y1, x2, y2 in visible)
        part = np.empty((height, width, 3), np.uint8)
        if covered < width * height:
            part[:] = GREY[0]
        for number, left, top, x1, y1, x2, y2 in visible:
            part[y1 - y : y2 - y, x1 - x : x2 - x] = read(number)[y1 - top : y2 - top, x1 - left : x2 - left]
        return part

    def enlarge(self, warp: Warp, stored_hw: Sequence[tuple[int, int]]) -> Enlargement:
        """Return the visible parts of the tiles under a warp without rotation.

        The edges of the tiles are rounded to whole pixels of the output, the same way on both sides of an edge.

        Args:
            warp: one with a ``window``.
            stored_hw: the sizes of the images that will be read for the tiles; each is brought to its size in the
                output in one step.
        """
        if warp.window is None:
            raise ValueError("this warp turns or tilts: paint the canvas and apply it")
        x, y, width, height = warp.window
        zoom_w, zoom_h = warp.zoom_wh
        invisible = (zoom_w, zoom_h), (-x * zoom_w, -y * zoom_h)
        parts, scale_shift = [], []
        for number, (left, top, tile_w, tile_h) in enumerate(self.tiles.tolist()):
            image_h, image_w = stored_hw[number]
            across = _span(x, width, zoom_w, left, tile_w, image_w, self.side)
            down = across and _span(y, height, zoom_h, top, tile_h, image_h, self.side)
            if not across or not down:
                scale_shift.append(invisible)
                continue
            (x1, x2, to_x1, to_x2, scale_x, shift_x), (y1, y2, to_y1, to_y2, scale_y, shift_y) = across, down
            scale_shift.append(((scale_x, scale_y), (shift_x, shift_y)))
            parts.append(TilePart(number, (x1, y1, x2, y2), (to_x1, to_y1, to_x2, to_y2)))
        return Enlargement(warp.out_hw, parts, np.array(scale_shift))

    def place_boxes(self, boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Move boxes [n, 5] (class, xyxy as fractions of a tile) of every tile to one array in pixels of the canvas."""
        merged = np.concatenate(boxes)  # a copy
        owner = self.tiles.astype(np.float32).repeat([len(rows) for rows in boxes], axis=0)[:, None]  # [n, 1, 4]
        corners = merged[:, 1:].reshape(-1, 2, 2) * owner[..., 2:] + owner[..., :2]
        merged[:, 1:] = np.minimum(np.maximum(corners, 0), self.side).reshape(-1, 4)
        return merged

    def place_segments(self, segments: Sequence[Sequence[np.ndarray]], boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Move polygons (fractions of a tile) of every tile to the canvas, in the order of the boxes.

        Args:
            segments: the polygons [m, 2] of every tile.
            boxes: the boxes of every tile; one with boxes but without polygons gets an empty polygon for each.

        Returns:
            One polygon per box; an empty list if no tile has any.
        """
        if not any(segments):
            return []
        placed: list[np.ndarray] = []
        for tile, polygons, rows in zip(self.tiles, segments, boxes):
            corner, size = tile[:2].astype(np.float32), tile[2:].astype(np.float32)
            moved = [(polygon * size + corner).clip(0, self.side) for polygon in polygons]
            placed += moved or [np.zeros((0, 2), np.float32)] * len(rows)
        return placed


def arrange_four(sizes_hw: Sequence[tuple[int, int]], size: int, rng: np.random.Generator) -> MosaicLayout:
    """Arrange four images, none larger than ``size``, in two rows on a canvas of twice that.

    They meet with one corner each in a point drawn uniformly from the middle half of the canvas.
    """
    if len(sizes_hw) != 4:
        raise ValueError(f"a mosaic takes 4 samples, not {len(sizes_hw)}")
    meet_x, meet_y = (int(c) for c in rng.uniform(size / 2, 3 * size / 2, 2))
    tiles = [
        (meet_x if place % 2 else meet_x - width, meet_y if place >= 2 else meet_y - height, width, height)
        for place, (height, width) in enumerate(sizes_hw)
    ]
    return MosaicLayout(2 * size, np.array(tiles))


def arrange_nine(sizes_hw: Sequence[tuple[int, int]], size: int, rng: np.random.Generator) -> MosaicLayout:
    """Arrange nine images, none larger than ``size``, in three rows around the middle one.

    Rows are as high as their highest image and columns as wide as their widest. The canvas of twice ``size`` lies
    at random within three times ``size``.
    """
    if len(sizes_hw) != 9:
        raise ValueError(f"a mosaic of nine takes 9 samples, not {len(sizes_hw)}")
    hw = np.array(sizes_hw).reshape(3, 3, 2)
    middle_h, middle_w = int(hw[1, :, 0].max()), int(hw[:, 1, 1].max())
    offset_x, offset_y = rng.integers(0, size, 2, endpoint=True).tolist()
    left, top = (3 * size - middle_w) // 2 - offset_x, (3 * size - middle_h) // 2 - offset_y  # of the middle cell
    tiles = []
    for place, (height, width) in enumerate(sizes_hw):
        row, column = divmod(place, 3)
        x = (left - width, left + (middle_w - width) // 2, left + middle_w)[column]
        y = (top - height, top + (middle_h - height) // 2, top + middle_h)[row]
        tiles.append((x, y, width, height))
    return MosaicLayout(2 * size, np.array(tiles))
