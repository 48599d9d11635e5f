"""Layers to try out, and the names that scripts import from here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.common import Conv
from models.registry import register
from utils.core.v61 import import_served, served_names


@register("scaled")
class CrossConv(nn.Module):
    """A k x k convolution in two: a row of k, then a column of k; the input is added when it fits."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, k=(1, k), s=(1, s))
        self.cv2 = Conv(hidden, c2, k=(k, 1), s=(s, 1), g=g)
        self.add = bool(shortcut) and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register("total")
class Sum(nn.Module):
    """Sum of a list of ``n`` maps of one shape, as they are or each but the first with a learned weight in 0..2."""

    def __init__(self, n: int, weight: bool = False) -> None:
        super().__init__()
        self.weight = weight
        if weight:
            self.w = nn.Parameter(-torch.arange(1.0, n) / 2)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        first, *others = x
        factors = 2 * torch.sigmoid(self.w) if self.weight else torch.ones(len(others), device=first.device)
        for factor, other in zip(factors.to(first.dtype), others):
            first = first + factor * other
        return first


@register("scaled")
class MixConv2d(nn.Module):
    """Convolutions of several kernel sizes side by side, joined: "MixConv", BMVC 2019, arXiv 1907.09595.

    Args:
        k: the kernel sizes.
        equal_ch: the same number of channels for each size; False: about the same number of weights.
    """

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (1, 3), s: int = 1, equal_ch: bool = True) -> None:
        super().__init__()
        shares = [1.0 if equal_ch else 1 / size**2 for size in k]
        ends = [round(c2 * sum(shares[: i + 1]) / sum(shares)) for i in range(len(k))]
        widths = [end - start for start, end in zip([0, *ends], ends)]
        if min(widths) < 1:
            raise ValueError(f"{c2} output channels are too few for the kernel sizes {list(k)}")
        self.m = nn.ModuleList(
            nn.Conv2d(c1, width, size, stride=s, padding=size // 2, groups=math.gcd(c1, width), bias=False)
            for width, size in zip(widths, k)
        )
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(torch.cat([conv(x) for conv in self.m], dim=1)))


__all__ = [*served_names("models.experimental"), "Conv", "nn", "torch"]


def __getattr__(name: str) -> Any:
    return import_served("models.experimental", name)
