"""Colors of an image, mirror images, mixup and copy-paste.

Most of these work on planes: an image as [3, H, W] in the order that the network wants, seen as HWC BGR. So the last
step to network input needs no copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from utils.datasets.augment.geometry import Sample

# Planes and colors ----------------------------------------------------------------------------------------------------


def as_image(planes: np.ndarray) -> np.ndarray:
    """View planes [3, H, W] in the order red, green, blue as an image [H, W, 3] BGR of the same memory."""
    return planes[::-1].transpose(1, 2, 0)


def planes_of(image: np.ndarray) -> np.ndarray:
    """Return red, green and blue [3, H, W] of a BGR image: a view of one made by ``as_image``, else a copy."""
    if image.strides[2] < 0:
        return image.transpose(2, 0, 1)[::-1]
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes[::-1]))
    return planes


def interleaved(image: np.ndarray) -> np.ndarray:
    """Return the image with the three bytes of a pixel side by side, as OpenCV needs it; a copy only of planes."""
    return cv2.merge(list(planes_of(image)[::-1])) if image.strides[2] < 0 else image


@dataclass(frozen=True)
class HsvJitter:
    """Changes hue, saturation and value of a BGR uint8 image by three ``factors``.

    With V the largest channel of a pixel, c becomes v * (V - s * (V - c)), which is what multiplying saturation and
    value by s and v in the HSV model gives. Where that leaves 0..255 each channel is clipped separately. Multiplying
    the hue by h would move red by nothing and magenta by 360 degrees * (h - 1); here every hue is rotated by the mean
    of that, around the grey axis. A few matrix operations instead of two conversions take a third of the time.
    """

    factors: tuple[float, float, float]

    @cached_property
    def _rotation(self) -> np.ndarray | None:
        """The matrix [3, 3] that rotates (blue, green, red) around grey; 120 degrees make red green, green blue."""
        angle = math.pi * (self.factors[0] - 1)
        if not angle:
            return None
        third, side = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
        own, next_one, previous = math.cos(angle) + third, third + side, third - side
        return np.array([[own, next_one, previous], [previous, own, next_one], [next_one, previous, own]])

    def split(self, image: np.ndarray, out: np.ndarray) -> None:
        """Write the changed image to ``out`` [3, H, W], red first."""
        red, green, blue = out
        cv2.split(image if self._rotation is None else cv2.transform(image, self._rotation), [blue, green, red])
        _, s, v = self.factors
        largest = cv2.max(cv2.max(blue, green), red)
        for plane in (red, green, blue):
            cv2.addWeighted(plane, v * s, largest, v * (1 - s), 0, dst=plane)

    def grey(self, level: int) -> int:
        """Return the grey that a grey of this level becomes."""
        return min(round(level * self.factors[2]), 255)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the changed image, a view of planes."""
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        self.split(interleaved(image), planes)
        return as_image(planes)


def draw_jitter(h: float, s: float, v: float, rng: np.random.Generator) -> HsvJitter | None:
    """Draw factors within 1 +/- (h, s, v); None if all three are 0."""
    if not (h or s or v):
        return None
    draws = rng.uniform(-1, 1, 3).tolist()
    return HsvJitter((1 + h * draws[0], 1 + s * draws[1], 1 + v * draws[2]))


# Samples --------------------------------------------------------------------------------------------------------------


def _flip(image: np.ndarray, axis: int) -> np.ndarray:
    """Flip an image; the result of planes is a view of planes."""
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


def _join_segments(samples: Sequence[Sample]) -> list[np.ndarray]:
    """Return the polygons of several samples in box order; rows of samples without polygons get an empty one."""
    if not any(sample.segments for sample in samples):
        return []
    joined: list[np.ndarray] = []
    for sample in samples:
        joined += sample.segments or [np.zeros((0, 2), np.float32)] * len(sample.boxes)
    return joined


def mixup_samples(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Blend two images of one size with a Beta(32, 32) weight; the labels of both stay (arXiv 1710.09412)."""
    weight = float(rng.beta(32.0, 32.0))
    planes = np.empty((3, *first.image.shape[:2]), np.uint8)
    for one, other, out in zip(planes_of(first.image), planes_of(second.image), planes):
        cv2.addWeighted(one, weight, other, 1 - weight, 0.0, dst=out)
    boxes = np.concatenate((first.boxes, second.boxes))
    return replace(first, image=as_image(planes), boxes=boxes, segments=_join_segments((first, second)))


def copy_paste_sample(sample: Sample, probability: float, rng: np.random.Generator) -> Sample:
    """Paste mirrored copies of some outlined objects where they cover little (arXiv 2012.07177, one image only).

    A share ``probability`` of the objects with a polygon is tried; a copy that hides 30 % or more of another object
    is not pasted.
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
            # fillPoly fills the edges too: use the outermost pixels whose middle is inside.
            middles = mirrored.segments[row] - 0.5
            outline = np.where(middles < middles.mean(0), np.ceil(middles), np.floor(middles))
            cv2.fillPoly(mask, [outline.astype(np.int32)], color=1)
    image = np.where(mask[..., None] > 0, mirrored.image, sample.image)
    return replace(sample, image=image, boxes=np.stack(boxes), segments=segments)
