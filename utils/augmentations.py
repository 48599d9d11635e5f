"""Augmentations of one picture with its labels: pure functions, every random draw from the generator that is passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.boxes import resample_segments, segment2box
from utils.image import LetterboxInfo
from utils.image import letterbox as letterbox  # scripts for v6.1 import it from here

GREY = (114, 114, 114)  # fill of everything outside the picture, the grey of the letterbox


@dataclass(frozen=True)
class Sample:
    """A decoded picture and its labels in pixels.

    ``image`` is HWC BGR uint8, ``boxes`` [n, 5] float32 (class, x1, y1, x2, y2). ``segments`` is empty, or holds one
    [m, 2] polygon per box, where a [0, 2] array stands for a row that was labelled by its box only.
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
    size_before = before[:, 2:4] - before[:, 0:2]  # [n, 2] width, height
    size_after = after[:, 2:4] - after[:, 0:2]
    remaining = size_after.prod(1) / (size_before.prod(1) + eps)
    elongation = size_after.max(1, initial=0.0) / (size_after.min(1, initial=np.inf) + eps)
    return (size_after > wh_thr).all(1) & (remaining > area_thr) & (elongation < ar_thr)


def _random_matrix(
    in_hw: tuple[int, int],
    out_hw: tuple[int, int],
    degrees: float,
    translate: float,
    scale: float,
    shear: float,
    perspective: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Draw a homography [3, 3] from input to output pixels; also return its scale factor."""
    centre = np.eye(3)
    centre[:2, 2] = -in_hw[1] / 2, -in_hw[0] / 2
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-perspective, perspective, 2)
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    zoom = float(rng.uniform(1 - scale, 1 + scale))
    lean_x, lean_y = np.tan(np.deg2rad(rng.uniform(-shear, shear, 2)))
    turn = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    place = np.eye(3)
    place[:2, :2] = np.array([[1.0, lean_x], [lean_y, 1.0]]) @ turn
    place[:2, 2] = rng.uniform(0.5 - translate, 0.5 + translate, 2) * (out_hw[1], out_hw[0])
    return place @ tilt @ centre, zoom


def _project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a homography to points [m, 2]."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]  # [m, 3]
    return mapped[:, :2] / mapped[:, 2:]


def _project_labels(sample: Sample, matrix: np.ndarray, zoom: float, out_hw: tuple[int, int]) -> Sample:
    """Move boxes and polygons by ``matrix``, clip the boxes to the output and drop those that are hardly visible."""
    height, width = out_hw
    before = sample.boxes[:, 1:5]
    corners = before[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)  # [4n, 2]
    moved = _project(corners, matrix).reshape(-1, 4, 2)
    after = np.concatenate((moved.min(1), moved.max(1)), 1)  # [n, 4]
    area_thr = np.full(len(after), 0.10)
    segments = [_project(polygon, matrix).astype(np.float32) for polygon in sample.segments]
    for row, polygon in enumerate(sample.segments):
        if len(polygon):
            # Bounds of the visible part of the outline: tighter than the bounds of four turned corners.
            outline = resample_segments([np.concatenate((polygon, polygon[:1]))], 1000)[0]
            after[row] = segment2box(_project(outline, matrix), width, height)
            area_thr[row] = 0.01
    after = after.clip(0, (width, height, width, height))
    keep = box_candidates(before * zoom, after, area_thr=area_thr)
    boxes = np.concatenate((sample.boxes[:, :1], after), 1)[keep].astype(np.float32)
    return replace(sample, boxes=boxes, segments=[polygon for polygon, kept in zip(segments, keep) if kept])


def random_perspective(
    sample: Sample,
    *,
    degrees: float = 10.0,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10.0,
    perspective: float = 0.0,
    border: int = 0,
    rng: np.random.Generator,
) -> Sample:
    """Rotate, scale, shear, shift and tilt the picture about its centre; boxes follow, clipped to the result.

    ``degrees`` and ``shear`` are half ranges in degrees, ``translate`` a fraction of the output size, ``scale`` a
    half range about 1. ``border`` pixels are added on every side; a negative one crops (mosaic canvas to picture).
    """
    in_hw = sample.image.shape[:2]
    out_hw = in_hw[0] + 2 * border, in_hw[1] + 2 * border
    matrix, zoom = _random_matrix(in_hw, out_hw, degrees, translate, scale, shear, perspective, rng)
    image, size_wh = sample.image, (out_hw[1], out_hw[0])
    if border or not np.array_equal(matrix, np.eye(3)):
        if perspective:
            image = cv2.warpPerspective(image, matrix, dsize=size_wh, borderValue=GREY)
        else:
            image = cv2.warpAffine(image, matrix[:2], dsize=size_wh, borderValue=GREY)
    return _project_labels(replace(sample, image=image), matrix, zoom, out_hw)


def augment_hsv(image: np.ndarray, h: float, s: float, v: float, rng: np.random.Generator) -> np.ndarray:
    """Return the BGR uint8 picture with hue, saturation and value multiplied by factors within 1 +/- (h, s, v)."""
    if not (h or s or v):
        return image
    factors = 1 + rng.uniform(-1, 1, 3) * (h, s, v)
    levels = np.arange(256) * factors[:, None]  # [3, 256]
    levels[0] %= 180  # OpenCV keeps hue in half degrees
    table = levels.clip(0, 255).astype(np.uint8).T[None]  # [1, 256, 3]: one table per channel
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2BGR)


def flip_horizontal(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = width - sample.boxes[:, [3, 1]]
    segments = [np.stack((width - xy[:, 0], xy[:, 1]), 1) for xy in sample.segments]
    return replace(sample, image=sample.image[:, ::-1], boxes=boxes, segments=segments)


def flip_vertical(sample: Sample) -> Sample:
    """Mirror top and bottom."""
    height = sample.image.shape[0]
    boxes = sample.boxes.copy()
    boxes[:, [2, 4]] = height - sample.boxes[:, [4, 2]]
    segments = [np.stack((xy[:, 0], height - xy[:, 1]), 1) for xy in sample.segments]
    return replace(sample, image=sample.image[::-1], boxes=boxes, segments=segments)


def mixup(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Blend two pictures of one size with a Beta(32, 32) weight; the labels of both stay (arXiv 1710.09412)."""
    weight = float(rng.beta(32.0, 32.0))
    image = cv2.addWeighted(first.image, weight, second.image, 1 - weight, 0.0)
    boxes = np.concatenate((first.boxes, second.boxes))
    return replace(first, image=image, boxes=boxes, segments=join_segments((first, second)))


def copy_paste(sample: Sample, probability: float, rng: np.random.Generator) -> Sample:
    """Paste mirrored copies of some outlined objects where they cover little (arXiv 2012.07177, one picture only).

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
            cv2.fillPoly(mask, [mirrored.segments[row].round().astype(np.int32)], color=1)
    image = np.where(mask[..., None] > 0, mirrored.image, sample.image)
    return replace(sample, image=image, boxes=np.stack(boxes), segments=segments)
