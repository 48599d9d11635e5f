"""Coordinate attention: arXiv 2103.02907.

    python train.py --modules examples/layers/coordatt.py --cfg examples/layers/yolov5n_coordatt.yaml

A row is ``[-1, 1, CoordAtt, []]``; the channels are those that arrive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.common import Conv
from models.registry import register


@register("norm")
class CoordAtt(nn.Module):
    """Each value times a factor for its row and one for its column: y_chw = x_chw * g_ch * h_cw.

    The mean of every row and that of every column go through one 1x1 convolution with norm and activation to
    max(8, channels / ratio) channels; from there a convolution each and a sigmoid make the factors.

    Args:
        c: channels.
        ratio: by how much the hidden layer is narrower, r in the paper.
    """

    def __init__(self, c: int, ratio: int = 32) -> None:
        super().__init__()
        if not 1 <= ratio < max(c, 33):
            raise ValueError(f"ratio must be from 1 to {max(c, 33) - 1}, got {ratio}; the {c} channels are no argument")
        hidden = max(8, c // ratio)
        self.reduce = Conv(c, hidden)  # the activation is SiLU, as in the rest of these models
        self.of_rows = nn.Conv2d(hidden, c, kernel_size=1)
        self.of_columns = nn.Conv2d(hidden, c, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        rows = x.mean(dim=3, keepdim=True)  # [B, C, H, 1]
        columns = x.mean(dim=2, keepdim=True).transpose(2, 3)  # [B, C, W, 1]
        both = self.reduce(torch.cat([rows, columns], dim=2))  # together, so that the norm sees them as one
        height = x.shape[2]
        by_row = self.of_rows(both[:, :, :height]).sigmoid()  # [B, C, H, 1]
        by_column = self.of_columns(both[:, :, height:]).sigmoid().transpose(2, 3)  # [B, C, 1, W]
        return x * by_row * by_column
