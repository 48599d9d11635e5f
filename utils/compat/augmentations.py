"""Names of ``utils.augmentations`` of YOLOv5 v6.1, with its arguments.

Images are HWC BGR uint8, labels [n, 5+] class, x1, y1, x2, y2 in pixels. Random numbers follow ``random.seed``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from utils.core.boxes import segments2boxes
from utils.core.image import LetterboxInfo
from utils.core.log import SCRIPT_LOG
from utils.datasets.augment import geometry, optional, pixels
from utils.datasets.augment.geometry import Sample

_NO_LABELS = np.zeros((0, 5), np.float32)


def _rng() -> np.random.Generator:
    return np.random.default_rng(random.getrandbits(64))


def _sample(im: np.ndarray, labels: np.ndarray = _NO_LABELS, segments: Sequence[np.ndarray] = ()) -> Sample:
    height, width = im.shape[:2]
    boxes = np.asarray(labels, np.float32).reshape(len(labels), -1)[:, :5] if len(labels) else _NO_LABELS
    info = LetterboxInfo((height, width), (1.0, 1.0), (0.0, 0.0))
    return Sample(np.ascontiguousarray(im), boxes.astype(np.float32), list(segments), "", info)


class Albumentations:
    """Blur, median blur, grey and CLAHE of the package of that name, each for 1 % of the images.

    Without the package, images are not changed, and a line is logged.
    """

    def __init__(self) -> None:
        self.transform: optional.AlbumentationsTransform | None = None
        try:
            self.transform = optional.AlbumentationsTransform(0.01)
        except ImportError:
            SCRIPT_LOG.info("albumentations: not installed, skipped: pip install albumentations")

    def __call__(self, im: np.ndarray, labels: np.ndarray, p: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Augment the image with probability ``p``; the labels are not changed."""
        if self.transform is not None and random.random() < p:
            im = self.transform(_sample(im), _rng()).image
        return im, labels


def augment_hsv(im: np.ndarray, hgain: float = 0.5, sgain: float = 0.5, vgain: float = 0.5) -> None:
    """Multiply hue, saturation and value by random factors within 1 +/- these gains, in place."""
    jitter = pixels.draw_jitter(hgain, sgain, vgain, _rng())
    if jitter is not None:
        im[:] = jitter(np.ascontiguousarray(im))


def random_perspective(
    im: np.ndarray,
    targets: np.ndarray | Sequence[np.ndarray] = (),
    segments: Sequence[np.ndarray] = (),
    degrees: float = 10,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10,
    perspective: float = 0.0,
    border: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, translate, scale, shear and tilt an image and its labels.

    Args:
        degrees, translate, scale, shear, perspective: see :class:`utils.datasets.augment.geometry.WarpRanges`.
        segments: empty, or a polygon [m, 2] in pixels per label.
        border: pixels to add (negative: to remove) above and below, and left and right.
    """
    out_hw = im.shape[0] + 2 * border[0], im.shape[1] + 2 * border[1]
    ranges = geometry.WarpRanges(
        degrees=degrees, translate=translate, scale=scale, shear=shear, perspective=perspective
    )
    moved = geometry.warp_sample(_sample(im, np.asarray(targets), segments), out_hw, ranges, _rng())
    return np.ascontiguousarray(moved.image), moved.boxes if len(targets) else np.asarray(targets)


def copy_paste(
    im: np.ndarray, labels: np.ndarray, segments: Sequence[np.ndarray], p: float = 0.5
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Paste mirrored copies of a share ``p`` of the outlined objects, where they cover little of other objects."""
    pasted = pixels.copy_paste_sample(_sample(im, labels, segments), p, _rng())
    added = pasted.segments[len(segments) :]
    if not added:
        return im, labels, list(segments)
    boxes = np.column_stack((pasted.boxes[len(labels) :, :1], _corners_of(added)))
    return pasted.image, np.concatenate((labels, boxes.astype(labels.dtype))), [*segments, *added]


def _corners_of(polygons: Sequence[np.ndarray]) -> np.ndarray:
    xywh = segments2boxes(polygons)
    return np.column_stack((xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2))


def mixup(im: np.ndarray, labels: np.ndarray, im2: np.ndarray, labels2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blend two images of one size with a weight from Beta(32, 32); the labels of both are kept."""
    blended = pixels.mixup_samples(_sample(im), _sample(im2), _rng())
    return pixels.interleaved(blended.image), np.concatenate((labels, labels2))
