"""Experimental layers of v6.1, and the names that scripts import from here."""

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
    """A k x k convolution in two: a row of k, then a column of k; ``shortcut`` adds an input of c2 channels."""

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
    """Sum of ``n`` feature maps of one shape; with ``weight``, all but the first times 2 * sigmoid(w), learned."""

    def __init__(self, n: int, weight: bool = False) -> None:
        super().__init__()
        self.weight = weight
        if weight:
            self.w = nn.Parameter(torch.arange(1, n) * -0.5)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        total, *others = x
        factors = 2 * torch.sigmoid(self.w) if self.weight else torch.ones(len(others), device=total.device)
        for factor, other in zip(factors.to(total.dtype), others):
            total = total + factor * other
        return total


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
        branches = [conv(x) for conv in self.m]
        normalised = self.bn(torch.cat(branches, dim=1))
        return self.act(normalised)


__all__ = [*served_names("models.experimental"), "Conv", "nn", "torch"]


def __getattr__(name: str) -> Any:
    return import_served("models.experimental", name)
