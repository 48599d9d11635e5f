"""Augmentations under the names and with the calls of YOLOv5 v6.1, for other people's scripts.

Images are HWC BGR uint8, labels [n, 5+] class, x1, y1, x2, y2 in pixels. Draws follow ``random.seed``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import cv2
import numpy as np

from utils.core.boxes import segments2boxes
from utils.core.image import LetterboxInfo, letterbox
from utils.core.log import SCRIPT_LOG
from utils.datasets import augment
from utils.datasets import optional_augment as effects
from utils.datasets.augment import Sample

__all__ = [
    "Albumentations", "augment_hsv", "box_candidates", "copy_paste", "cutout", "hist_equalize", "letterbox", "mixup",
    "random_perspective", "replicate",
]  # fmt: skip

_NO_LABELS = np.zeros((0, 5), np.float32)
_SPREAD = 0.5  # share of the boxes, the smallest, that ``replicate`` copies


def _rng() -> np.random.Generator:
    return np.random.default_rng(random.getrandbits(64))


def _sample(im: np.ndarray, labels: np.ndarray = _NO_LABELS, segments: Sequence[np.ndarray] = ()) -> Sample:
    height, width = im.shape[:2]
    boxes = np.asarray(labels, np.float32).reshape(len(labels), -1)[:, :5] if len(labels) else _NO_LABELS
    info = LetterboxInfo((height, width), (1.0, 1.0), (0.0, 0.0))
    return Sample(np.ascontiguousarray(im), boxes.astype(np.float32), list(segments), "", info)


class Albumentations:
    """Blur, median blur, grey and CLAHE of the package of that name, a hundredth of the images each.

    Without the package nothing is changed, and a line says so.
    """

    def __init__(self) -> None:
        self.transform: effects.Albumentations | None = None
        try:
            self.transform = effects.Albumentations(0.01)
        except ImportError:
            SCRIPT_LOG.info("%sleft out: pip install albumentations", "albumentations: ")

    def __call__(self, im: np.ndarray, labels: np.ndarray, p: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """With probability ``p`` the image may be changed; the labels stay."""
        if self.transform is not None and random.random() < p:
            im = self.transform(_sample(im), _rng()).image
        return im, labels


def augment_hsv(im: np.ndarray, hgain: float = 0.5, sgain: float = 0.5, vgain: float = 0.5) -> None:
    """Change hue, saturation and value by factors within 1 +/- these, in place."""
    im[:] = augment.augment_hsv(im, hgain, sgain, vgain, _rng())


def hist_equalize(im: np.ndarray, clahe: bool = True, bgr: bool = False) -> np.ndarray:
    """The image (RGB, or BGR as ``bgr`` says) with its brightness spread: tile by tile (CLAHE) or at once."""
    there, back = (
        (cv2.COLOR_BGR2YUV, cv2.COLOR_YUV2BGR) if bgr else (cv2.COLOR_RGB2YUV, cv2.COLOR_YUV2RGB)
    )  # fmt: skip
    luma, *chroma = cv2.split(cv2.cvtColor(im, there))
    luma = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(luma) if clahe else cv2.equalizeHist(luma)
    return cv2.cvtColor(cv2.merge((luma, *chroma)), back)


def replicate(im: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy the smaller half of the objects to random places of the image, in place, and append their labels."""
    height, width = im.shape[:2]
    rng, added = _rng(), []
    corners = labels[:, 1:5].astype(int)
    sides = (corners[:, 2:] - corners[:, :2]).mean(1)
    for row in sides.argsort()[: round(len(sides) * _SPREAD)]:
        x1, y1, x2, y2 = corners[row].tolist()
        w, h = x2 - x1, y2 - y1
        if not (0 < w <= width and 0 < h <= height):
            continue
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        im[y : y + h, x : x + w] = im[y1:y2, x1:x2].copy()
        added.append([labels[row, 0], x, y, x + w, y + h])
    return im, np.concatenate((labels, np.array(added, labels.dtype))) if added else labels


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
    """Turn, shift, scale, shear and tilt an image and its labels; see :func:`utils.datasets.augment.draw_warp`.

    ``segments`` is empty or has a polygon [m, 2] in pixels per label; ``border`` adds pixels above and below, left and
    right, or takes them away.
    """
    out_hw = im.shape[0] + 2 * border[0], im.shape[1] + 2 * border[1]
    moved = augment.random_perspective(
        _sample(im, np.asarray(targets), segments), out_hw, degrees=degrees, translate=translate, scale=scale,
        shear=shear, perspective=perspective, rng=_rng(),
    )  # fmt: skip
    return np.ascontiguousarray(moved.image), moved.boxes if len(targets) else np.asarray(targets)


def copy_paste(
    im: np.ndarray, labels: np.ndarray, segments: Sequence[np.ndarray], p: float = 0.5
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Paste mirrored copies of a share ``p`` of the outlined objects, where they hide little."""
    pasted = augment.copy_paste(_sample(im, labels, segments), p, _rng())
    added = pasted.segments[len(segments) :]
    if not added:
        return im, labels, list(segments)
    boxes = np.column_stack((pasted.boxes[len(labels) :, :1], _corners_of(added)))
    return pasted.image, np.concatenate((labels, boxes.astype(labels.dtype))), [*segments, *added]


def _corners_of(polygons: Sequence[np.ndarray]) -> np.ndarray:
    xywh = segments2boxes(polygons)
    return np.column_stack((xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2))


def cutout(im: np.ndarray, labels: np.ndarray, p: float = 0.5) -> np.ndarray:
    """With probability ``p`` hide rectangles, in place; the labels of what is more than 60 % hidden are left out."""
    if random.random() >= p:
        return labels
    sample = _sample(im, labels)
    hidden = effects.cutout(sample, _rng())
    im[:] = hidden.image
    kept = {row.tobytes() for row in hidden.boxes}
    return labels[[row.tobytes() in kept for row in sample.boxes]] if len(labels) else labels


def mixup(im: np.ndarray, labels: np.ndarray, im2: np.ndarray, labels2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two images of one size blended by a Beta(32, 32) weight, with the labels of both."""
    blended = augment.mixup(_sample(im), _sample(im2), _rng())
    return augment.interleaved(blended.image), np.concatenate((labels, labels2))


def box_candidates(
    box1: np.ndarray,
    box2: np.ndarray,
    wh_thr: float = 2,
    ar_thr: float = 100,
    area_thr: float = 0.1,
    eps: float = 1e-16,
) -> np.ndarray:
    """Which boxes are still worth learning; ``box1`` and ``box2`` [4, n] are their corners before and after."""
    return augment.box_candidates(box1.T, box2.T, wh_thr, ar_thr, area_thr, eps)
