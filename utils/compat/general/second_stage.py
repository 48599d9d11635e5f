"""A classifier behind a detector, as v6.1's detect.py has it for those who switch it on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from utils.compat.general.numbers import scale_coords
from utils.plots.crops import crop_box

_SIDE = 224  # of the images that the classifier sees
_GAIN, _PAD = 1.3, 30.0  # how far beyond its box an object is cut out


def apply_classifier(
    x: list[Tensor | None], model: nn.Module, img: Tensor, im0: np.ndarray | Sequence[np.ndarray]
) -> list[Tensor | None]:
    """The detections whose class a classifier confirms.

    Args:
        x: of each image [n, 6] x1, y1, x2, y2 in pixels of ``img``, confidence, class; or None.
        model: [n, 3, 224, 224] RGB in 0..1 -> [n, classes] scores.
        img: [B, 3, H, W] what the detector saw.
        im0: the images themselves, HWC BGR.

    Returns:
        ``x``, whose rows are those confirmed, with boxes in pixels of the images.
    """
    originals = [im0] if isinstance(im0, np.ndarray) else im0
    for i, rows in enumerate(x):
        if rows is None or not len(rows):
            continue
        original = originals[i]
        scale_coords(img.shape[2:], rows[:, :4], original.shape)
        parts = [crop_box(original, box, _GAIN, _PAD, square=True) for box in rows[:, :4].tolist()]
        seen = [cv2.resize(part if part.size else original, (_SIDE, _SIDE))[..., ::-1] for part in parts]
        batch = torch.from_numpy(np.stack(seen).transpose(0, 3, 1, 2).copy()).to(rows.device).float() / 255
        with torch.no_grad():
            confirmed = model(batch).argmax(1) == rows[:, 5].long()
        x[i] = rows[confirmed]
    return x
