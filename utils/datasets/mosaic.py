"""Four pictures around one point of a canvas of twice the training size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.augmentations import GREY, Sample, join_segments
from utils.image import LetterboxInfo


def mosaic4(samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
    """Lay four samples, none larger than ``size`` pixels a side, on a canvas of 2 * size by 2 * size.

    They meet with one corner each in a point drawn uniformly from the middle half of the canvas: upper left, upper
    right, lower left, lower right. What reaches past the canvas is cut off, boxes and polygons are clipped to it.
    """
    if len(samples) != 4:
        raise ValueError(f"a mosaic takes 4 samples, not {len(samples)}")
    side = 2 * size
    centre_x, centre_y = (int(c) for c in rng.uniform(size / 2, 3 * size / 2, 2))
    canvas = np.full((side, side, 3), GREY[0], np.uint8)
    boxes: list[np.ndarray] = []
    segments = join_segments(samples)
    first = 0
    for place, sample in enumerate(samples):
        height, width = sample.image.shape[:2]
        left = centre_x if place % 2 else centre_x - width
        top = centre_y if place >= 2 else centre_y - height
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        canvas[y1:y2, x1:x2] = sample.image[y1 - top : y2 - top, x1 - left : x2 - left]
        boxes.append(sample.boxes + np.array([0, left, top, left, top], np.float32))
        for row in range(first, first + len(sample.boxes) if segments else first):
            segments[row] = (segments[row] + np.array([left, top], np.float32)).clip(0, side)
        first += len(sample.boxes)
    merged = np.concatenate(boxes)
    merged[:, 1:] = merged[:, 1:].clip(0, side)
    info = LetterboxInfo(original_hw=(side, side), ratio_wh=(1.0, 1.0), pad_wh=(0.0, 0.0))
    return Sample(canvas, merged, segments, samples[0].path, info)
