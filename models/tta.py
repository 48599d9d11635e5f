"""Test-time augmentation: the boxes of three views of a batch (full size, smaller and mirrored, smaller still)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING = 0.447  # mean grey of ImageNet, with which v6.1 pads


@dataclass(frozen=True)
class View:
    """One view of a batch: scaled by ``scale``, mirrored left to right if ``mirrored``."""

    scale: float
    mirrored: bool = False

    def of(self, images: Tensor, stride: int) -> Tensor:
        """This view of [B, C, H, W]; padded at the right and bottom to multiples of ``stride``."""
        if self.mirrored:
            images = images.flip(3)
        if self.scale == 1:
            return images
        exact = [side * self.scale for side in images.shape[2:]]
        height, width = (int(side) for side in exact)
        # Before rounding down, as in v6.1: 128.64 px are padded to 160 although the image has 128.
        full_h, full_w = (math.ceil(side / stride) * stride for side in exact)
        small = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        return F.pad(small, (0, full_w - width, 0, full_h - height), value=PADDING)

    def undo(self, decoded: Tensor, width: int) -> Tensor:
        """Boxes [B, N, no] (xywh first) of this view in pixels of the batch, which is ``width`` pixels wide."""
        boxes = decoded[..., :4] / self.scale
        if self.mirrored:
            boxes[..., 0] = width - boxes[..., 0]
        return torch.cat([boxes, decoded[..., 4:]], dim=-1)


VIEWS = (View(1.0), View(0.83, mirrored=True), View(0.67))


def augmented_forward(model: Any, x: Tensor) -> Tensor:
    """Decoded boxes of all views of ``x``, one after the other.

    The coarsest level of the full-size view and the finest of the smallest view are dropped: very large objects are
    detected better in the small views, very small ones in the large.

    Args:
        model: a :class:`models.yolo.Model` (which imports this module) in evaluation mode.
        x: [B, C, H, W] in 0..1, sides multiples of the largest stride.

    Returns:
        [B, N, nc + 5]: centre x, y, width, height in pixels of ``x``, objectness, class scores.

    Raises:
        RuntimeError: ``model`` is in training mode, in which it decodes nothing.
    """
    if model.training:
        raise RuntimeError("augmented inference needs the model in evaluation mode: call model.eval() first")
    stride, width = int(model.stride.max()), x.shape[3]
    boxes = []
    for number, view in enumerate(VIEWS):
        decoded, levels = model(view.of(x, stride))
        per_level = [level.shape[1:4].numel() for level in levels]  # na * ny * nx
        if len(levels) > 1:  # the only level of a head is always kept
            first = per_level[0] if number == len(VIEWS) - 1 else 0
            last = per_level[-1] if number == 0 else 0
            decoded = decoded[:, first : decoded.shape[1] - last]
        boxes.append(view.undo(decoded, width))
    return torch.cat(boxes, dim=1)


class AugmentedModel(nn.Module):
    """A model that returns the boxes of all views; it takes the place of ``net`` where decoded boxes are needed."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.names: list[str] = net.names
        self.nc: int = net.nc
        self.imgsz: tuple[int, int] | None = net.imgsz
        self.stride: Tensor = net.stride

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(boxes [B, N, nc + 5], None): the raw predictions of several views have no common shape."""
        return augmented_forward(self.net, x), None
