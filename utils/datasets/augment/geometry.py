"""A decoded image with its labels, and the random geometry (scale, shift, rotation ...) that moves both alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.core.boxes import resample_segments, segment2box
from utils.core.image import LetterboxInfo

GREY = (114, 114, 114)  # padding, as of the letterbox


@dataclass(frozen=True)
class Sample:
    """A decoded image and its labels in pixels.

    Attributes:
        image: HWC BGR uint8, perhaps a view of planes (:func:`utils.datasets.augment.pixels.as_image`).
        boxes: [n, 5] float32 class, x1, y1, x2, y2.
        segments: empty, or one polygon [m, 2] per box; [0, 2] for a row that was labelled by its box only.
        path: of the image file.
        info: where the original image lies in ``image``.
    """

    image: np.ndarray
    boxes: np.ndarray
    segments: list[np.ndarray]
    path: str
    info: LetterboxInfo


def learnable_boxes(
    before: np.ndarray,
    after: np.ndarray,
    wh_thr: float = 2.0,
    ar_thr: float = 100.0,
    area_thr: float | np.ndarray = 0.1,
    eps: float = 1e-16,
) -> np.ndarray:
    """Select the boxes that are still worth learning after an augmentation.

    Args:
        before: [n, 4] xyxy, multiplied by the scale of the augmentation.
        after: [n, 4] xyxy, clipped to the image.
        wh_thr: both sides must exceed so many pixels.
        ar_thr: the longer side must be less than so many times the shorter.
        area_thr: more than this share of the area must be left; a number, or one per box.
        eps: keeps divisors above 0.

    Returns:
        bool [n].
    """
    width_before, height_before = before[:, 2] - before[:, 0], before[:, 3] - before[:, 1]  # [n]
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    remaining = width * height / (width_before * height_before + eps)
    return (shorter > wh_thr) & (remaining > area_thr) & (longer / (shorter + eps) < ar_thr)


def _project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a homography to points [m, 2]."""
    projected = points @ matrix[:, :2].T + matrix[:, 2]  # [m, 3]
    return projected[:, :2] / projected[:, 2:]


@dataclass(frozen=True, kw_only=True)
class WarpRanges:
    """Ranges of the random geometry; the names are those of the hyper-parameters.

    Attributes:
        degrees: rotation, half range in degrees.
        translate: shift, half range as a fraction of the output size.
        scale: half range about a factor of 1.
        shear: half range in degrees.
        perspective: half range of the perspective entries of the matrix.
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0


@dataclass(frozen=True)
class Warp:
    """One draw of the geometry: how an image of ``in_hw`` becomes one of ``out_hw``.

    Attributes:
        in_hw: height and width of the input in pixels.
        out_hw: height and width of the output.
        matrix: [3, 3] from points of the input to points of the output, in pixels. The upper left corner of the upper
            left pixel is (0, 0), so its middle is (0.5, 0.5): boxes and pixels follow the same matrix exactly.
        zoom_wh: factor on widths and heights before the rotation.
        window: (x, y, width, height) when the output is this part of the input, enlarged or reduced. It may reach
            past the input. None: the output is rotated, sheared or tilted.
    """

    in_hw: tuple[int, int]
    out_hw: tuple[int, int]
    matrix: np.ndarray
    zoom_wh: tuple[float, float]
    window: tuple[int, int, int, int] | None

    def source_window(self) -> tuple[int, int, int, int]:
        """Return the part (x, y, width, height) of the input that :meth:`apply` needs; it may reach past the input."""
        if self.window is not None:
            return self.window
        (in_h, in_w), (out_h, out_w) = self.in_hw, self.out_hw
        corners = np.array([[0, 0], [out_w, 0], [out_w, out_h], [0, out_h]], np.float64)
        inverse = np.linalg.inv(self.matrix)
        if (corners @ inverse[2, :2] + inverse[2, 2] <= 0).any():  # tilted so far that the horizon is visible
            return 0, 0, in_w, in_h
        back = _project(corners, inverse).clip(0, (in_w, in_h))
        # Two more pixels on every side: interpolation blends them into the outermost ones.
        x1, y1 = (back.min(0) - 2).clip(0).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(back.max(0)) + 2, (in_w, in_h)).astype(int).tolist()
        return x1, y1, max(x2 - x1, 1), max(y2 - y1, 1)

    def apply(self, part: np.ndarray, at: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Return the output [out_h, out_w, 3]; ``part`` is the input from pixel ``at`` (x, y) on."""
        size_wh = self.out_hw[1], self.out_hw[0]
        if self.window is not None:
            x, y, width, height = self.window
            view = _crop(part, x - at[0], y - at[1], width, height)
            return view if size_wh == (width, height) else cv2.resize(view, size_wh, interpolation=cv2.INTER_LINEAR)
        # For OpenCV the middle of the first pixel is (0, 0).
        move = np.array([[1, 0, at[0] + 0.5], [0, 1, at[1] + 0.5], [0, 0, 1]])
        matrix = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]]) @ self.matrix @ move
        if matrix[2, 0] or matrix[2, 1]:
            return cv2.warpPerspective(part, matrix, dsize=size_wh, borderValue=GREY)
        return cv2.warpAffine(part, matrix[:2], dsize=size_wh, borderValue=GREY)

    def move_labels(
        self,
        boxes: np.ndarray,
        segments: Sequence[np.ndarray] = (),
        scale_shift: np.ndarray | None = None,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Move labels to the output; boxes are clipped to it, and those that are hardly visible are dropped.

        Args:
            boxes: [n, 5] class, xyxy in pixels of the input.
            segments: one polygon [m, 2] per box, or none.
            scale_shift: [n, 2, 2] (scale, shift) of x and y for each box, if not those of the matrix.

        Returns:
            Boxes [k, 5] and their polygons, not clipped, in pixels of the output.
        """
        if not len(boxes):
            return boxes, []
        height, width = self.out_hw
        before = boxes[:, 1:5]
        if scale_shift is not None:
            after = (before.reshape(-1, 2, 2) * scale_shift[:, :1] + scale_shift[:, 1:]).reshape(-1, 4)
        elif self.window is not None:
            after = before * (self.zoom_wh * 2) + np.tile(self.matrix[:2, 2], 2)  # [n, 4]
        else:
            corners = before[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)  # [4n, 2]
            moved = _project(corners, self.matrix).reshape(-1, 4, 2)
            after = np.concatenate((moved.min(1), moved.max(1)), 1)
        area_thr: float | np.ndarray = 0.10
        moved_segments: list[np.ndarray] = []
        if segments:
            area_thr = np.array([0.01 if len(polygon) else 0.10 for polygon in segments])
            scales = [None] * len(segments) if scale_shift is None else scale_shift.astype(np.float32)
            for row, (polygon, own) in enumerate(zip(segments, scales)):
                moved_segments.append(
                    _project(polygon, self.matrix).astype(np.float32) if own is None else polygon * own[0] + own[1]
                )
                if len(polygon):
                    after[row] = _visible_bounds(moved_segments[row], width, height)
        after = np.minimum(np.maximum(after, 0), (width, height, width, height))
        keep = learnable_boxes(before * (self.zoom_wh * 2), after, area_thr=area_thr)
        kept = np.empty((int(keep.sum()), 5), np.float32)
        kept[:, 0], kept[:, 1:] = boxes[keep, 0], after[keep]
        return kept, [polygon for polygon, seen in zip(moved_segments, keep) if seen]


def _visible_bounds(polygon: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the corners [4] of the part of an outline inside the image, tighter than those of a rotated box."""
    low, high = polygon.min(0), polygon.max(0)
    whole = low.min() >= 0 and high[0] <= width and high[1] <= height
    if whole or high.min() <= 0 or low[0] >= width or low[1] >= height:  # or outside
        return np.concatenate((low, high))
    outline = resample_segments([np.concatenate((polygon, polygon[:1]))], 1000)[0]
    return segment2box(outline, width, height)


def _crop(image: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Return a part of an image, grey where it reaches past the edges; a view where it does not."""
    rows, columns = image.shape[:2]
    if x >= 0 and y >= 0 and x + width <= columns and y + height <= rows:
        return image[y : y + height, x : x + width]
    part = np.full((height, width, 3), GREY[0], np.uint8)
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + width, columns), min(y + height, rows)
    if x1 < x2 and y1 < y2:
        part[y1 - y : y2 - y, x1 - x : x2 - x] = image[y1:y2, x1:x2]
    return part


def draw_warp(in_hw: tuple[int, int], out_hw: tuple[int, int], ranges: WarpRanges, rng: np.random.Generator) -> Warp:
    """Draw how an image is rotated, scaled, sheared, shifted and tilted about its centre.

    Without rotation, shear and perspective the source is rounded to whole pixels: then the output is a plain
    enlargement, several times faster than a general warp and exact at the boxes.
    """
    (in_h, in_w), (out_h, out_w) = in_hw, out_hw
    draws = rng.uniform(-1, 1, 8).tolist()
    zoom = 1 + ranges.scale * draws[0]
    centre_x, centre_y = (0.5 + ranges.translate * draws[1]) * out_w, (0.5 + ranges.translate * draws[2]) * out_h
    if not (ranges.degrees or ranges.shear or ranges.perspective):
        width, height = max(round(out_w / zoom), 1), max(round(out_h / zoom), 1)
        zoom_w, zoom_h = out_w / width, out_h / height
        x, y = round(in_w / 2 - centre_x / zoom_w), round(in_h / 2 - centre_y / zoom_h)
        plain = np.array([[zoom_w, 0, -x * zoom_w], [0, zoom_h, -y * zoom_h], [0, 0, 1]])
        return Warp(in_hw, out_hw, plain, (zoom_w, zoom_h), (x, y, width, height))
    angle = math.radians(ranges.degrees * draws[3])
    shear_x, shear_y = (math.tan(math.radians(ranges.shear * draw)) for draw in draws[4:6])
    rotation = zoom * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    tilt, place, to_centre = np.eye(3), np.eye(3), np.eye(3)
    tilt[2, :2] = ranges.perspective * draws[6], ranges.perspective * draws[7]
    place[:2, :2] = np.array([[1.0, shear_x], [shear_y, 1.0]]) @ rotation
    place[:2, 2] = centre_x, centre_y
    to_centre[:2, 2] = -in_w / 2, -in_h / 2
    return Warp(in_hw, out_hw, place @ tilt @ to_centre, (zoom, zoom), None)


def warp_sample(sample: Sample, out_hw: tuple[int, int] | None, ranges: WarpRanges, rng: np.random.Generator) -> Sample:
    """Rotate, scale, shear, shift and tilt a sample as :func:`draw_warp` describes; boxes are clipped to the result.

    The centre moves to that of ``out_hw``, which may be smaller (mosaic canvas to image); None: the size stays.
    """
    height, width = sample.image.shape[:2]
    warp = draw_warp((height, width), out_hw or (height, width), ranges, rng)
    boxes, segments = warp.move_labels(sample.boxes, sample.segments)
    return replace(sample, image=warp.apply(sample.image), boxes=boxes, segments=segments)
