"""Augmentations of one image with its labels: pure functions, every random draw from the generator that is passed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from utils.core.boxes import resample_segments, segment2box
from utils.core.image import LetterboxInfo

GREY = (114, 114, 114)  # fill of everything outside the image, the grey of the letterbox


@dataclass(frozen=True)
class Sample:
    """A decoded image and its labels in pixels.

    ``image`` is HWC BGR uint8, perhaps a view of planes (:func:`as_image`). ``boxes`` [n, 5] is float32 (class, x1, y1,
    x2, y2). ``segments`` is empty, or holds one [m, 2] polygon per box, where a [0, 2] array stands for a row that was
    labelled by its box only.
    """

    image: np.ndarray
    boxes: np.ndarray
    segments: list[np.ndarray]
    path: str
    info: LetterboxInfo


def join_segments(samples: Sequence[Sample]) -> list[np.ndarray]:
    """Return the polygons of several samples in box order; rows of samples without polygons get an empty one."""
    if not any(sample.segments for sample in samples):
        return []
    joined: list[np.ndarray] = []
    for sample in samples:
        joined += sample.segments or [np.zeros((0, 2), np.float32)] * len(sample.boxes)
    return joined


def box_candidates(
    before: np.ndarray,
    after: np.ndarray,
    wh_thr: float = 2.0,
    ar_thr: float = 100.0,
    area_thr: float | np.ndarray = 0.1,
    eps: float = 1e-16,
) -> np.ndarray:
    """Tell which boxes are still worth learning after an augmentation.

    ``before`` and ``after`` are [n, 4] xyxy, the first already multiplied by the scale of the augmentation. A box
    stays when both sides exceed ``wh_thr`` pixels, more than ``area_thr`` (a number, or one per box) of its area is
    left, and the longer side is less than ``ar_thr`` times the shorter. Returns bool [n].
    """
    width_before, height_before = before[:, 2] - before[:, 0], before[:, 3] - before[:, 1]  # [n]
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    remaining = width * height / (width_before * height_before + eps)
    return (shorter > wh_thr) & (remaining > area_thr) & (longer / (shorter + eps) < ar_thr)


def _project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a homography to points [m, 2]."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]  # [m, 3]
    return mapped[:, :2] / mapped[:, 2:]


@dataclass(frozen=True)
class Warp:
    """One draw of the geometry: how an image of ``in_hw`` becomes one of ``out_hw``.

    Attributes:
        matrix: [3, 3] from places in the input to places in the output, in pixels. The upper left corner of the upper
            left pixel is (0, 0), so its middle is (0.5, 0.5): boxes and pixels follow the same matrix exactly.
        zoom_wh: factor on widths and heights before turning.
        window: (x, y, width, height) when the output is just this part of the input, enlarged or reduced. It may reach
            past the input. None: the output is turned or tilted.
    """

    in_hw: tuple[int, int]
    out_hw: tuple[int, int]
    matrix: np.ndarray
    zoom_wh: tuple[float, float]
    window: tuple[int, int, int, int] | None

    def source(self) -> tuple[int, int, int, int]:
        """The part (x, y, width, height) of the input that :meth:`apply` needs; it may reach past the input."""
        if self.window is not None:
            return self.window
        (in_h, in_w), (out_h, out_w) = self.in_hw, self.out_hw
        corners = np.array([[0, 0], [out_w, 0], [out_w, out_h], [0, out_h]], np.float64)
        inverse = np.linalg.inv(self.matrix)
        if (corners @ inverse[2, :2] + inverse[2, 2] <= 0).any():  # tilted so far that the horizon is in sight
            return 0, 0, in_w, in_h
        back = _project(corners, inverse)
        # Two pixels more on every side: what is blended into the outermost ones.
        x1, y1 = (back.min(0).clip(0, (in_w, in_h)) - 2).clip(0).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(back.max(0).clip(0, (in_w, in_h))) + 2, (in_w, in_h)).astype(int).tolist()
        return x1, y1, max(x2 - x1, 1), max(y2 - y1, 1)

    def apply(self, part: np.ndarray, at: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The output [out_h, out_w, 3] from that part of the input which starts at pixel ``at`` (x, y)."""
        size_wh = self.out_hw[1], self.out_hw[0]
        if self.window is not None:
            x, y, width, height = self.window
            view = _cut(part, x - at[0], y - at[1], width, height)
            return view if size_wh == (width, height) else cv2.resize(view, size_wh, interpolation=cv2.INTER_LINEAR)
        # OpenCV counts from the middle of the first pixel.
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
        """Boxes [n, 5] and polygons in the output, boxes clipped to it; those that are hardly visible are dropped.

        ``scale_shift`` [n, 2, 2]: factors and summands of x and y for each box, if not those of the matrix.
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
        keep = box_candidates(before * (self.zoom_wh * 2), after, area_thr=area_thr)
        kept = np.empty((int(keep.sum()), 5), np.float32)
        kept[:, 0], kept[:, 1:] = boxes[keep, 0], after[keep]
        return kept, [polygon for polygon, seen in zip(moved_segments, keep) if seen]


def _visible_bounds(polygon: np.ndarray, width: int, height: int) -> np.ndarray:
    """Corners [4] around the part of an outline that lies in the image, tighter than those of a turned box."""
    low, high = polygon.min(0), polygon.max(0)
    whole = low.min() >= 0 and high[0] <= width and high[1] <= height
    if whole or high.min() <= 0 or low[0] >= width or low[1] >= height:  # or not there at all
        return np.concatenate((low, high))
    outline = resample_segments([np.concatenate((polygon, polygon[:1]))], 1000)[0]
    return segment2box(outline, width, height)


def _cut(image: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Part of an image, grey where it reaches past the edges; a view where it does not."""
    rows, columns = image.shape[:2]
    if x >= 0 and y >= 0 and x + width <= columns and y + height <= rows:
        return image[y : y + height, x : x + width]
    part = np.full((height, width, 3), GREY[0], np.uint8)
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + width, columns), min(y + height, rows)
    if x1 < x2 and y1 < y2:
        part[y1 - y : y2 - y, x1 - x : x2 - x] = image[y1:y2, x1:x2]
    return part


def draw_warp(
    in_hw: tuple[int, int],
    out_hw: tuple[int, int],
    *,
    degrees: float = 10.0,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10.0,
    perspective: float = 0.0,
    rng: np.random.Generator,
) -> Warp:
    """Draw how an image is turned, scaled, sheared, shifted and tilted about its centre.

    ``degrees`` and ``shear`` are half ranges in degrees, ``translate`` a fraction of the output size, ``scale`` a half
    range about 1. With the first two and ``perspective`` at 0 the source is rounded to whole pixels: then the
    output is a plain enlargement, several times faster than a general warp and exact at the boxes.
    """
    (in_h, in_w), (out_h, out_w) = in_hw, out_hw
    draws = rng.uniform(-1, 1, 8).tolist()
    zoom = 1 + scale * draws[0]
    centre_x, centre_y = (0.5 + translate * draws[1]) * out_w, (0.5 + translate * draws[2]) * out_h
    if not (degrees or shear or perspective):
        width, height = max(round(out_w / zoom), 1), max(round(out_h / zoom), 1)
        zoom_w, zoom_h = out_w / width, out_h / height
        x, y = round(in_w / 2 - centre_x / zoom_w), round(in_h / 2 - centre_y / zoom_h)
        plain = np.array([[zoom_w, 0, -x * zoom_w], [0, zoom_h, -y * zoom_h], [0, 0, 1]])
        return Warp(in_hw, out_hw, plain, (zoom_w, zoom_h), (x, y, width, height))
    angle = math.radians(degrees * draws[3])
    lean_x, lean_y = math.tan(math.radians(shear * draws[4])), math.tan(math.radians(shear * draws[5]))
    turn = zoom * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    tilt, place, to_centre = np.eye(3), np.eye(3), np.eye(3)
    tilt[2, :2] = perspective * draws[6], perspective * draws[7]
    place[:2, :2] = np.array([[1.0, lean_x], [lean_y, 1.0]]) @ turn
    place[:2, 2] = centre_x, centre_y
    to_centre[:2, 2] = -in_w / 2, -in_h / 2
    return Warp(in_hw, out_hw, place @ tilt @ to_centre, (zoom, zoom), None)


def random_perspective(
    sample: Sample,
    out_hw: tuple[int, int] | None = None,
    *,
    degrees: float = 10.0,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10.0,
    perspective: float = 0.0,
    rng: np.random.Generator,
) -> Sample:
    """Rotate, scale, shear, shift and tilt a sample as :func:`draw_warp` says; boxes follow, clipped to the result.

    The centre comes to that of ``out_hw``, which may be smaller (mosaic canvas to image); None: the size stays.
    """
    height, width = sample.image.shape[:2]
    warp = draw_warp(
        (height, width),
        out_hw or (height, width),
        degrees=degrees,
        translate=translate,
        scale=scale,
        shear=shear,
        perspective=perspective,
        rng=rng,
    )
    boxes, segments = warp.move_labels(sample.boxes, sample.segments)
    return replace(sample, image=warp.apply(sample.image), boxes=boxes, segments=segments)


# Colours and channels -------------------------------------------------------------------------------------------------


def as_image(planes: np.ndarray) -> np.ndarray:
    """Planes [3, H, W] in the order red, green, blue as an image [H, W, 3] BGR of the same memory."""
    return planes[::-1].transpose(1, 2, 0)


def planes_of(image: np.ndarray) -> np.ndarray:
    """Red, green and blue [3, H, W] of a BGR image: of one made by ``as_image`` its own memory, else a copy."""
    if image.strides[2] < 0:
        return image.transpose(2, 0, 1)[::-1]
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes[::-1]))
    return planes


def interleaved(image: np.ndarray) -> np.ndarray:
    """The image with the three bytes of a pixel side by side, as OpenCV wants it; a copy only if they are not."""
    return cv2.merge(list(planes_of(image)[::-1])) if image.strides[2] < 0 else image


@dataclass(frozen=True)
class Jitter:
    """Changes hue, saturation and value of a BGR uint8 image by three ``factors``.

    With V the largest channel of a pixel, c becomes v * (V - s * (V - c)): what multiplying saturation and value by s
    and v in the HSV model comes to. Where that leaves 0..255 each channel is cut off for itself. Multiplying the hue by
    h would move red by nothing and magenta by 360 degrees * (h - 1); here every hue is turned by the mean of that,
    around the grey axis. A few matrix operations instead of two conversions take a third of the time.
    """

    factors: tuple[float, float, float]

    @cached_property
    def _turn(self) -> np.ndarray | None:
        """The rotation [3, 3] of (blue, green, red) around grey; a third of a turn makes red green, green blue."""
        angle = math.pi * (self.factors[0] - 1)
        if not angle:
            return None
        third, side = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
        stay, come, go = math.cos(angle) + third, third + side, third - side
        return np.array([[stay, come, go], [go, stay, come], [come, go, stay]])

    def split(self, image: np.ndarray, out: np.ndarray) -> None:
        """Write the changed image to ``out`` [3, H, W], red first."""
        red, green, blue = out
        cv2.split(image if self._turn is None else cv2.transform(image, self._turn), [blue, green, red])
        _, s, v = self.factors
        largest = cv2.max(cv2.max(blue, green), red)
        for plane in (red, green, blue):
            cv2.addWeighted(plane, v * s, largest, v * (1 - s), 0, dst=plane)

    def grey(self, level: int) -> int:
        """What a grey becomes: a grey."""
        return min(round(level * self.factors[2]), 255)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The changed image, as ``as_image`` makes it."""
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        self.split(interleaved(image), planes)
        return as_image(planes)


def draw_jitter(h: float, s: float, v: float, rng: np.random.Generator) -> Jitter | None:
    """Factors within 1 +/- (h, s, v); None if all three are 0."""
    if not (h or s or v):
        return None
    of_h, of_s, of_v = rng.uniform(-1, 1, 3).tolist()
    return Jitter((1 + h * of_h, 1 + s * of_s, 1 + v * of_v))


def augment_hsv(image: np.ndarray, h: float, s: float, v: float, rng: np.random.Generator) -> np.ndarray:
    """Return the BGR uint8 image with hue, saturation and value changed by factors within 1 +/- (h, s, v)."""
    jitter = draw_jitter(h, s, v, rng)
    return image if jitter is None else interleaved(jitter(np.ascontiguousarray(image)))


# Mirror, blend, paste -------------------------------------------------------------------------------------------------


def _flip(image: np.ndarray, axis: int) -> np.ndarray:
    """``cv2.flip`` that keeps planes planes."""
    if image.strides[2] > 0:
        return cv2.flip(image, axis)
    planes = planes_of(image)
    out = np.empty_like(planes, order="C")
    for plane, mirrored in zip(planes, out):
        cv2.flip(plane, axis, dst=mirrored)
    return as_image(out)


def flip_horizontal(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = width - sample.boxes[:, [3, 1]]
    segments = [np.stack((width - xy[:, 0], xy[:, 1]), 1) for xy in sample.segments]
    return replace(sample, image=_flip(sample.image, 1), boxes=boxes, segments=segments)


def flip_vertical(sample: Sample) -> Sample:
    """Mirror top and bottom."""
    height = sample.image.shape[0]
    boxes = sample.boxes.copy()
    boxes[:, [2, 4]] = height - sample.boxes[:, [4, 2]]
    segments = [np.stack((xy[:, 0], height - xy[:, 1]), 1) for xy in sample.segments]
    return replace(sample, image=_flip(sample.image, 0), boxes=boxes, segments=segments)


def mixup(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Blend two images of one size with a Beta(32, 32) weight; the labels of both stay (arXiv 1710.09412)."""
    weight = float(rng.beta(32.0, 32.0))
    ours, theirs = planes_of(first.image), planes_of(second.image)
    planes = np.empty(ours.shape, np.uint8)
    for one, other, out in zip(ours, theirs, planes):
        cv2.addWeighted(one, weight, other, 1 - weight, 0.0, dst=out)
    boxes = np.concatenate((first.boxes, second.boxes))
    return replace(first, image=as_image(planes), boxes=boxes, segments=join_segments((first, second)))


def copy_paste(sample: Sample, probability: float, rng: np.random.Generator) -> Sample:
    """Paste mirrored copies of some outlined objects where they cover little (arXiv 2012.07177, one image only).

    A share ``probability`` of the objects with a polygon is tried; a copy that hides 30 % or more of an object
    already there is not pasted.
    """
    outlined = [row for row, polygon in enumerate(sample.segments) if len(polygon)]
    tried = rng.permutation(outlined)[: round(probability * len(outlined))].astype(int)
    if not len(tried):
        return sample
    mirrored = flip_horizontal(sample)
    boxes, segments = list(sample.boxes), list(sample.segments)
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    for row in tried:
        existing, copy = np.stack(boxes)[:, 1:5], mirrored.boxes[row, 1:5]
        overlap_wh = np.minimum(existing[:, 2:], copy[2:]) - np.maximum(existing[:, :2], copy[:2])
        areas = (existing[:, 2:] - existing[:, :2]).prod(1)
        if (overlap_wh.clip(0).prod(1) < 0.30 * areas).all():
            boxes.append(mirrored.boxes[row])
            segments.append(mirrored.segments[row])
            # fillPoly fills its own edges too: from the outermost pixels whose middle is inside.
            middles = mirrored.segments[row] - 0.5
            outline = np.where(middles < middles.mean(0), np.ceil(middles), np.floor(middles))
            cv2.fillPoly(mask, [outline.astype(np.int32)], color=1)
    image = np.where(mask[..., None] > 0, mirrored.image, sample.image)
    return replace(sample, image=image, boxes=np.stack(boxes), segments=segments)
