"""Names of ``utils.activations`` of YOLOv5 v6.1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SiLU = nn.SiLU  # x * sigmoid(x), arXiv 1606.08415 and 1710.05941
Hardswish = nn.Hardswish  # x * relu6(x + 3) / 6, arXiv 1905.02244
Mish = nn.Mish  # x * tanh(softplus(x)), arXiv 1908.08681
MemoryEfficientMish = nn.Mish  # torch's version keeps no intermediate results either


class FReLU(nn.Module):
    """Funnel activation, arXiv 2007.11824: max(x, T(x)), T a depthwise convolution with batch norm.

    Args:
        c1: channels.
        k: odd kernel size of T.
    """

    def __init__(self, c1: int, k: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c1, kernel_size=k, padding=k // 2, groups=c1, bias=False)
        self.bn = nn.BatchNorm2d(c1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return torch.maximum(x, self.bn(self.conv(x)))


def _acon(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """ACON-C, arXiv 2009.04759 eq. 7: d * sigmoid(beta * d) + p2 * x with d = (p1 - p2) * x."""
    difference = (p1 - p2) * x
    return torch.addcmul(p2 * x, difference, torch.sigmoid(beta * difference))


class AconC(nn.Module):
    """ACON-C, arXiv 2009.04759: a smooth maximum of p1 x and p2 x; p1, p2 and beta are learnt for each channel."""

    def __init__(self, c1: int) -> None:
        super().__init__()
        self.p1, self.p2 = (nn.Parameter(torch.randn(1, c1, 1, 1)) for _ in range(2))
        self.beta = nn.Parameter(torch.ones(1, c1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return _acon(x, self.p1, self.p2, self.beta)


class MetaAconC(nn.Module):
    """ACON-C with a beta per image: sigmoid(fc2(fc1(mean over all cells))), arXiv 2009.04759 section 4.

    Args:
        c1: channels.
        k, s: kernel and stride of the two layers on the 1x1 feature map.
        r: reduction of the hidden width, which is at least ``r``.
    """

    def __init__(self, c1: int, k: int = 1, s: int = 1, r: int = 16) -> None:
        super().__init__()
        hidden = max(c1 // r, r)
        self.p1, self.p2 = (nn.Parameter(torch.randn(1, c1, 1, 1)) for _ in range(2))
        self.fc1 = nn.Conv2d(c1, hidden, kernel_size=k, stride=s)
        self.fc2 = nn.Conv2d(hidden, c1, kernel_size=k, stride=s)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape. No batch norm in between: a batch of one could not be trained."""
        pooled = F.adaptive_avg_pool2d(x, 1)  # [B, C, 1, 1]
        return _acon(x, self.p1, self.p2, torch.sigmoid(self.fc2(self.fc1(pooled))))
