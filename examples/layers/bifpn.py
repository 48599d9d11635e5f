"""The weighted fusion of BiFPN: arXiv 1911.09070, "fast normalized fusion".

    python train.py --modules examples/layers/bifpn.py --cfg examples/layers/yolov5n_bifpn.yaml

A row is ``[[-1, 6], 1, BiFPN, []]``: two or more feature maps of one size and one number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.registry import register


@register("total")
class BiFPN(nn.Module):
    """Mean of ``n`` feature maps with learned weights: y = sum_i w_i x_i / (eps + sum_j w_j), each w_i by a ReLU.

    Starts with equal weights. The convolution after it, which the paper has too, is a separate row.
    """

    def __init__(self, n: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.w = nn.Parameter(torch.ones(n))

    def shares(self) -> Tensor:
        """[n], each from 0 to 1; together almost 1."""
        w = F.relu(self.w)
        return w / (self.eps + w.sum())

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """n feature maps [B, C, H, W] -> one."""
        first, *others = [share * one for share, one in zip(self.shares(), x)]
        for other in others:
            first = first + other
        return first
