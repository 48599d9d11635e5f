"""Test-time augmentation: the boxes of three views of a batch (full size, smaller and mirrored, smaller still)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING = 0.447  # mean grey of ImageNet, what v6.1 fills with


class DetectionNetwork(Protocol):
    """What is needed of a :class:`models.yolo.Model`, which knows this module and cannot be imported here."""

    training: bool
    names: list[str]
    stride: Tensor
    imgsz: tuple[int, int] | None

    @property
    def nc(self) -> int: ...

    def __call__(self, x: Tensor) -> Any: ...


@dataclass(frozen=True)
class View:
    """How the model is shown the batch: scaled by ``scale``, mirrored left to right if ``mirrored``."""

    scale: float
    mirrored: bool = False

    def of(self, images: Tensor, stride: int) -> Tensor:
        """[B, C, H, W] as this view shows it; sides filled up at the right and bottom to multiples of ``stride``."""
        if self.mirrored:
            images = images.flip(3)
        if self.scale == 1:
            return images
        exact = [side * self.scale for side in images.shape[2:]]
        height, width = (int(side) for side in exact)
        # Before rounding down, as in v6.1: 128.64 px ask for 160 although 128 are drawn.
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


def augmented_forward(model: DetectionNetwork, x: Tensor) -> Tensor:
    """Decoded boxes of all views of ``x``, one after the other.

    The coarsest level of the full-size view and the finest of the smallest view are left out: very large objects are
    seen better in the small views, very small ones in the large.

    Args:
        model: in evaluation mode.
        x: [B, C, H, W] in 0..1, sides multiples of the largest stride.

    Returns:
        [B, N, nc + 5]: centre x, y, width, height in pixels of ``x``, objectness, class scores.

    Raises:
        RuntimeError: ``model`` is in training mode, in which it decodes nothing.
    """
    if model.training:
        raise RuntimeError("augmented inference needs the model in evaluation mode: call model.eval() first")
    stride, width = int(model.stride.max()), x.shape[3]
    found = []
    for number, view in enumerate(VIEWS):
        decoded, maps = model(view.of(x, stride))
        per_level = [level.shape[1:4].numel() for level in maps]  # na * ny * nx
        if len(maps) > 1:  # a head of one level has none to spare
            first = per_level[0] if number == len(VIEWS) - 1 else 0
            last = per_level[-1] if number == 0 else 0
            decoded = decoded[:, first : decoded.shape[1] - last]
        found.append(view.undo(decoded, width))
    return torch.cat(found, dim=1)


class AugmentedModel(nn.Module):
    """A model that always looks at all views; takes the place of ``net`` where decoded boxes are wanted."""

    def __init__(self, net: DetectionNetwork) -> None:
        super().__init__()
        self.net = net

    @property
    def names(self) -> list[str]:
        return self.net.names

    @property
    def nc(self) -> int:
        return self.net.nc

    @property
    def imgsz(self) -> tuple[int, int] | None:
        return self.net.imgsz

    @property
    def stride(self) -> Tensor:
        return self.net.stride

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(boxes [B, N, nc + 5], None): the maps of several views have no common shape, so there are none."""
        return augmented_forward(self.net, x), None
