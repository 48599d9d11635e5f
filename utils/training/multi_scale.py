"""Training at changing image sizes (``--multi-scale``)."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn import functional as F


def resize_batch(images: Tensor, imgsz: int, stride: int, seed: tuple[int, int]) -> Tensor:
    """Resize [B, 3, H, W] to a random long side: a multiple of ``stride`` between 0.5 and 1.5 times ``imgsz``.

    It is at least two strides: with one, the coarsest feature map would be one pixel, which batch norm refuses when the
    batch is a single image.

    Args:
        images: of a batch.
        imgsz: side of the training images.
        stride: largest one of the model.
        seed: seed of the run, and iteration; the size depends on nothing else.
    """
    low, high = max(2, math.ceil(imgsz * 0.5 / stride)), math.floor(imgsz * 1.5 / stride)
    side = int(np.random.default_rng(seed).integers(low, high + 1)) * stride
    gain = side / max(images.shape[2:])
    if gain == 1:
        return images
    hw = [math.ceil(edge * gain / stride) * stride for edge in images.shape[2:]]
    return F.interpolate(images, size=hw, mode="bilinear", align_corners=False)
