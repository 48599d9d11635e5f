"""Augmentations that are off unless a hyper-parameter turns them on: cutout, histograms, the albumentations package."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from utils.config.hyp import Hyp
from utils.datasets.augment.geometry import Sample

LOG = logging.getLogger(__name__)

_PATCHES = 8
_PATCH_SIDE = (1 / 32, 1 / 4)  # of the image
_MAX_HIDDEN = 0.6  # share of a box under patches; boxes with more are dropped

SampleTransform = Callable[[Sample, np.random.Generator], Sample]


def cutout_sample(sample: Sample, rng: np.random.Generator) -> Sample:
    """Hide rectangles under one color each (arXiv 1708.04552); boxes of which more than 60 % is hidden are dropped."""
    height, width = sample.image.shape[:2]
    image, hidden = sample.image.copy(), np.zeros((height, width), np.float32)
    for _ in range(_PATCHES):
        w, h = (max(int(side * share), 1) for side, share in zip((width, height), rng.uniform(*_PATCH_SIDE, 2)))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        image[y : y + h, x : x + w] = rng.integers(64, 192, 3)
        hidden[y : y + h, x : x + w] = 1
    keep = []
    for x1, y1, x2, y2 in sample.boxes[:, 1:].round().astype(int).tolist():
        inside = hidden[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
        keep.append(inside.size == 0 or float(inside.mean()) <= _MAX_HIDDEN)
    segments = [polygon for polygon, kept in zip(sample.segments, keep) if kept]
    return replace(sample, image=image, boxes=sample.boxes[np.array(keep, bool)], segments=segments)


def equalize_sample(sample: Sample, rng: np.random.Generator) -> Sample:
    """Equalize the histogram of the brightness, at random of the whole image or tile by tile (CLAHE)."""
    luma, *chroma = cv2.split(cv2.cvtColor(sample.image, cv2.COLOR_BGR2YUV))
    if rng.random() < 0.5:
        luma = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(luma)
    else:
        luma = cv2.equalizeHist(luma)
    return replace(sample, image=cv2.cvtColor(cv2.merge((luma, *chroma)), cv2.COLOR_YUV2BGR))


class AlbumentationsTransform:
    """Blur, median blur, grey and CLAHE of the albumentations package, each with ``probability``; boxes stay.

    The package is imported when the first object is made, without its check for updates.

    Raises:
        ImportError: it is not installed.
    """

    NAMES = ("Blur", "MedianBlur", "ToGray", "CLAHE")

    def __init__(self, probability: float) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        package = importlib.import_module("albumentations")
        self.probability = probability
        self._transforms = [getattr(package, name)(p=1.0) for name in self.NAMES]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = None
        for transform, draw in zip(self._transforms, rng.random(len(self._transforms)).tolist()):
            if draw < self.probability:
                image = cv2.cvtColor(sample.image, cv2.COLOR_BGR2RGB) if image is None else image
                image = _apply_seeded(transform, image, int(rng.integers(2**31)))
        if image is None:
            return sample
        return replace(sample, image=cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _apply_seeded(transform: Any, image: np.ndarray, seed: int) -> np.ndarray:
    """Apply a transform of the package with a seed; older releases know only the global one."""
    if hasattr(transform, "set_random_seed"):
        transform.set_random_seed(seed)
        return transform(image=image)["image"]
    state = random.getstate()
    random.seed(seed)
    try:
        return transform(image=image)["image"]
    finally:
        random.setstate(state)


def enabled_transforms(hyp: Hyp) -> list[tuple[float, SampleTransform]]:
    """Return (probability, transform) of those that ``hyp`` turns on; a missing package is reported and skipped."""
    transforms: list[tuple[float, SampleTransform]] = []
    if hyp.albumentations:
        if importlib.util.find_spec("albumentations") is None:
            LOG.warning(
                "hyp albumentations: %g has no effect: the package is not installed (pip install albumentations)",
                hyp.albumentations,
            )
        else:
            transforms.append((1.0, AlbumentationsTransform(hyp.albumentations)))  # it draws by itself
    if hyp.hist_equalize:
        transforms.append((hyp.hist_equalize, equalize_sample))
    if hyp.cutout:
        transforms.append((hyp.cutout, cutout_sample))
    return transforms
