"""Several images side by side on one canvas: where they lie, and the pixels of any part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from utils.core.image import LetterboxInfo
from utils.datasets.augment import GREY, Jitter, Sample, Warp, as_image, join_segments

Window = tuple[int, int, int, int]  # x, y, width, height in pixels of the canvas
Loader = Callable[[int, float], np.ndarray]  # (which tile, share of its rows needed from the top) -> image


class Piece(NamedTuple):
    """The visible part of a tile: corners in pixels of its image and of the output; ``rows`` of it are needed."""

    tile: int
    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]
    rows: float


@dataclass(frozen=True)
class Enlargement:
    """What becomes of the tiles when a part of the canvas is enlarged (or reduced) to an image of ``out_hw``.

    Attributes:
        pieces: the tiles that are seen.
        scale_shift: [t, 2, 2] for every tile (scale, shift) of width and height: output = canvas * scale + shift.
    """

    out_hw: tuple[int, int]
    pieces: list[Piece]
    scale_shift: np.ndarray

    def paint(self, load: Loader, jitter: Jitter | None = None) -> np.ndarray:
        """The output [H, W, 3], a view of planes; grey where no tile is. ``load`` as in :meth:`Layout.paint`.

        Colours are changed before a tile is enlarged or after it is reduced, whichever means fewer pixels.
        """
        planes = np.empty((3, *self.out_hw), np.uint8)
        covered = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (piece.target for piece in self.pieces))
        if covered < self.out_hw[0] * self.out_hw[1]:
            planes.fill(GREY[0] if jitter is None else jitter.grey(GREY[0]))
        for tile, (x1, y1, x2, y2), (left, top, right, bottom), rows in self.pieces:
            part, target = load(tile, rows)[y1:y2, x1:x2], planes[:, top:bottom, left:right]
            size_wh = right - left, bottom - top
            if part.size < target.size:
                small = np.empty((3, *part.shape[:2]), np.uint8)
                _split(part, small, jitter)
                for plane, out in zip(small, target):
                    cv2.resize(plane, size_wh, dst=out)
            else:
                same = part.shape[:2] == target.shape[1:]
                _split(part if same else cv2.resize(part, size_wh), target, jitter)
        return as_image(planes)


def _split(image: np.ndarray, out: np.ndarray, jitter: Jitter | None) -> None:
    """Write a BGR image, its colours changed, to ``out`` [3, H, W], red first."""
    if jitter is None:
        cv2.split(image, list(out[::-1]))
    else:
        jitter.split(image, out)


_Span = tuple[int, int, int, int, float, float]


def _span(origin: int, extent: int, zoom: float, low: int, length: int, real: int, side: int) -> _Span | None:
    """One side of the visible part of a tile that lies at ``low`` on the canvas, ``length`` long, or None.

    The window begins at ``origin``, is ``extent`` long and enlarged by ``zoom``. Returns the first and last of the
    ``real`` pixels of the image, what they become in the output, and the scale and shift from canvas to output.
    """
    begin, end = max(low, origin, 0), min(low + length, origin + extent, side)
    if begin >= end:
        return None
    start, stop = round((begin - origin) * zoom), round((end - origin) * zoom)
    density = real / length  # pixels of the image for one of the canvas
    first, last = round((begin - low) * density), round((end - low) * density)
    if last <= first or stop <= start:
        return None
    scale = density * (stop - start) / (last - first)  # that of the rounded edges
    return first, last, start, stop, scale, start - (low + first / density) * scale


@dataclass(frozen=True)
class Layout:
    """Tiles [t, 4] (left, top, width, height) on a square canvas of ``side`` pixels; they do not overlap.

    A tile may reach past the canvas: what lies outside is cut off, boxes and polygons are clipped.
    """

    side: int
    tiles: np.ndarray

    def paint(self, window: Window, load: Loader) -> np.ndarray:
        """The pixels [height, width, 3] of a part of the canvas, grey where nothing lies.

        ``load`` is asked only for tiles that are seen. It may return just the upper part of an image, as long as the
        share of rows that it was asked for is there.
        """
        x, y, width, height = window
        seen = []  # tile and the corners of its visible part
        for number, (left, top, tile_w, tile_h) in enumerate(self.tiles.tolist()):
            x1, y1 = max(left, x, 0), max(top, y, 0)
            x2, y2 = min(left + tile_w, x + width, self.side), min(top + tile_h, y + height, self.side)
            if x1 < x2 and y1 < y2:
                seen.append((number, left, top, tile_h, x1, y1, x2, y2))
        covered = sum((x2 - x1) * (y2 - y1) for *_, x1, y1, x2, y2 in seen)
        part = np.empty((height, width, 3), np.uint8)
        if covered < width * height:
            part[:] = GREY[0]
        for number, left, top, tile_h, x1, y1, x2, y2 in seen:
            tile = load(number, (y2 - top) / tile_h)
            part[y1 - y : y2 - y, x1 - x : x2 - x] = tile[y1 - top : y2 - top, x1 - left : x2 - left]
        return part

    def enlarge(self, warp: Warp, images_hw: Sequence[tuple[int, int]] | None = None) -> Enlargement:
        """What a warp without turning keeps of every tile.

        The edges of the tiles are rounded to whole pixels of the output, alike on both sides of a seam.
        ``images_hw`` are the sizes of the images that will be loaded, if they are not those of the tiles: then they
        are brought to the size that they have in the output in one step.
        """
        if warp.window is None:
            raise ValueError("this warp turns or tilts: paint the canvas and apply it")
        x, y, width, height = warp.window
        zoom_w, zoom_h = warp.zoom_wh
        unseen = (zoom_w, zoom_h), (-x * zoom_w, -y * zoom_h)
        pieces, scale_shift = [], []
        for number, (left, top, tile_w, tile_h) in enumerate(self.tiles.tolist()):
            real_h, real_w = (tile_h, tile_w) if images_hw is None else images_hw[number]
            across = _span(x, width, zoom_w, left, tile_w, real_w, self.side)
            down = across and _span(y, height, zoom_h, top, tile_h, real_h, self.side)
            if not across or not down:
                scale_shift.append(unseen)
                continue
            (x1, x2, to_x1, to_x2, scale_x, shift_x), (y1, y2, to_y1, to_y2, scale_y, shift_y) = across, down
            scale_shift.append(((scale_x, scale_y), (shift_x, shift_y)))
            pieces.append(Piece(number, (x1, y1, x2, y2), (to_x1, to_y1, to_x2, to_y2), y2 / real_h))
        return Enlargement(warp.out_hw, pieces, np.array(scale_shift))

    def place_boxes(self, boxes: Sequence[np.ndarray], fractions: bool = False) -> np.ndarray:
        """Boxes [n, 5] (class, xyxy) of every tile, in its pixels or as fractions of it, to one array on the canvas."""
        merged = np.concatenate(boxes)  # a copy
        corners = merged[:, 1:].reshape(-1, 2, 2)
        owner = self.tiles.astype(np.float32).repeat([len(rows) for rows in boxes], axis=0)[:, None]  # [n, 1, 4]
        if fractions:
            corners = corners * owner[..., 2:]
        corners = corners + owner[..., :2]
        merged[:, 1:] = np.minimum(np.maximum(corners, 0), self.side).reshape(-1, 4)
        return merged


def lay_four(sizes_hw: Sequence[tuple[int, int]], size: int, rng: np.random.Generator) -> Layout:
    """Four images, none larger than ``size``, on a canvas of twice that: upper left, upper right, lower left, right.

    They meet with one corner each in a point drawn uniformly from the middle half of the canvas.
    """
    if len(sizes_hw) != 4:
        raise ValueError(f"a mosaic takes 4 samples, not {len(sizes_hw)}")
    meet_x, meet_y = (int(c) for c in rng.uniform(size / 2, 3 * size / 2, 2))
    tiles = [
        (meet_x if place % 2 else meet_x - width, meet_y if place >= 2 else meet_y - height, width, height)
        for place, (height, width) in enumerate(sizes_hw)
    ]
    return Layout(2 * size, np.array(tiles))


def lay_nine(sizes_hw: Sequence[tuple[int, int]], size: int, rng: np.random.Generator) -> Layout:
    """Nine images, none larger than ``size``, in three rows of three, pushed together around the middle one.

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
    return Layout(2 * size, np.array(tiles))


def mosaic4(samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
    """Lay four samples, none larger than ``size`` pixels a side, on a canvas of 2 * size by 2 * size.

    See :func:`lay_four` for where they lie. What reaches past the canvas is cut off, boxes and polygons are clipped.
    """
    return join(samples, lay_four([(s.image.shape[0], s.image.shape[1]) for s in samples], size, rng))


def join(samples: Sequence[Sample], layout: Layout) -> Sample:
    """The whole canvas of a layout with all labels; the path is that of the first sample."""
    side = layout.side
    canvas = layout.paint((0, 0, side, side), lambda number, _: samples[number].image)
    boxes = layout.place_boxes([sample.boxes for sample in samples])
    segments = join_segments(samples)
    owner = np.repeat(layout.tiles[:, :2], [len(sample.boxes) for sample in samples], axis=0)
    segments = [(outline + corner.astype(np.float32)).clip(0, side) for outline, corner in zip(segments, owner)]
    info = LetterboxInfo(original_hw=(side, side), ratio_wh=(1.0, 1.0), pad_wh=(0.0, 0.0))
    return Sample(canvas, boxes, segments, samples[0].path, info)


def place_segments(
    layout: Layout, segments: Sequence[Sequence[np.ndarray]], boxes: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The polygons of all tiles, as fractions of them, on the canvas in the order of the boxes; empty if there is none.

    A tile with ``boxes`` but without polygons gets an empty polygon for each.
    """
    if not any(segments):
        return []
    placed: list[np.ndarray] = []
    for tile, polygons, rows in zip(layout.tiles, segments, boxes):
        corner, size = tile[:2].astype(np.float32), tile[2:].astype(np.float32)
        moved = [(polygon * size + corner).clip(0, layout.side) for polygon in polygons]
        placed += moved or [np.zeros((0, 2), np.float32)] * len(rows)
    return placed
