"""ECA, efficient channel attention: arXiv 1910.03151.

    python train.py --modules examples/layers/eca.py --cfg examples/layers/yolov5n_eca.yaml

A row is ``[-1, 1, ECA, []]``; the channels are those that arrive.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.registry import register


def kernel_size(c: int, gamma: float = 2, b: float = 1) -> int:
    """k = |log2(C) / gamma + b / gamma|, to the nearest odd number (the larger one of two)."""
    return 2 * int(abs(math.log2(c) + b) / gamma / 2) + 1


@register("norm")
class ECA(nn.Module):
    """A factor per channel: sigmoid of a convolution along the channels, over the mean of each; no other weights.

    Args:
        c: channels.
        k: neighbours that a channel looks at, itself included; None: by :func:`kernel_size`.
    """

    def __init__(self, c: int, k: int | None = None) -> None:
        super().__init__()
        k = kernel_size(c) if k is None else k
        if k % 2 == 0 or not 1 <= k <= c:
            raise ValueError(f"the kernel must be odd and at most {c}, got {k}; the {c} channels are no argument")
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        factors = self.conv(x.mean(dim=(2, 3)).unsqueeze(1)).sigmoid()  # [B, 1, C]
        return x * factors.transpose(1, 2).unsqueeze(3)
