"""CBAM, the convolutional block attention module: arXiv 1807.06521.

    python train.py --modules examples/layers/cbam.py --cfg examples/layers/yolov5n_cbam.yaml

A row is ``[-1, 1, CBAM, []]``; the channels are those that arrive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.registry import register


class ChannelAttention(nn.Module):
    """A factor per channel: sigmoid(MLP(mean of the channel) + MLP(maximum of the channel)), one MLP for both."""

    def __init__(self, c: int, ratio: int) -> None:
        super().__init__()
        hidden = c // ratio
        self.mlp = nn.Sequential(
            nn.Conv2d(c, hidden, kernel_size=1, bias=False), nn.ReLU(), nn.Conv2d(hidden, c, kernel_size=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 1, 1]."""
        mean, largest = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.mlp(mean) + self.mlp(largest))


class SpatialAttention(nn.Module):
    """A factor per position: sigmoid of a k x k convolution over the mean and the maximum of the channels."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 1, H, W]."""
        return torch.sigmoid(self.conv(torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)))


@register("norm")
class CBAM(nn.Module):
    """Channels are weighted, then positions: x' = a(x) * x, y = b(x') * x'.

    Args:
        c: channels.
        ratio: by how much the hidden layer of the MLP is narrower, r in the paper.
        k: kernel of the spatial attention.
    """

    def __init__(self, c: int, ratio: int = 16, k: int = 7) -> None:
        super().__init__()
        if not 1 <= ratio < max(c, 2):
            raise ValueError(f"ratio must be from 1 to {max(c, 2) - 1}, got {ratio}; the {c} channels are no argument")
        if k % 2 == 0:
            raise ValueError(f"the kernel must be odd to keep the size of the feature map, got {k}")
        self.channels, self.positions = ChannelAttention(c, ratio), SpatialAttention(k)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        x = x * self.channels(x)
        return x * self.positions(x)
