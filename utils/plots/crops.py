"""Cutting detected objects out of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def crop_box(
    image: np.ndarray, box_xyxy: Sequence[float], gain: float = 1.02, pad: float = 10, square: bool = False
) -> np.ndarray:
    """The part of an image [H, W, C] within a box that is first enlarged about its centre: a view, perhaps empty.

    Args:
        image: any channel order.
        box_xyxy: corners in pixels.
        gain: factor on both sides of the box.
        pad: pixels added to both sides after that.
        square: make both sides as long as the longer one first.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    box_w, box_h = x2 - x1, y2 - y1
    side_w, side_h = (max(box_w, box_h),) * 2 if square else (box_w, box_h)
    grow_x = (box_w * (gain - 1) + (side_w - box_w) * gain + pad) / 2
    grow_y = (box_h * (gain - 1) + (side_h - box_h) * gain + pad) / 2
    left, top = max(0, int(x1 - grow_x)), max(0, int(y1 - grow_y))
    right, bottom = min(width, int(x2 + grow_x)), min(height, int(y2 + grow_y))
    return image[top : max(top, bottom), left : max(left, right)]
