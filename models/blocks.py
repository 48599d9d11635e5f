"""The other layers of the v6.1 models: older blocks, ghost convolutions, transformers, pixels moved to channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common import C3, Bottleneck, Conv, DWConv, autopad
from models.registry import register


@register("scaled_inner")
class BottleneckCSP(nn.Module):
    """The cross-stage-partial block of v1 to v3: one norm and activation, after both branches are joined."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = nn.Conv2d(c1, hidden, kernel_size=1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, kernel_size=1, bias=False)
        self.cv4 = Conv(2 * hidden, c2)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = nn.SiLU()
        self.m = nn.Sequential(*[Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.cv3(self.m(self.cv1(x))), self.cv2(x)], dim=1)
        return self.cv4(self.act(self.bn(both)))


@register("scaled")
class SPP(nn.Module):
    """Spatial pyramid pooling: the input and max-pools of several sizes, merged by a 1x1."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden * (1 + len(k)), c2)
        self.m = nn.ModuleList([nn.MaxPool2d(size, stride=1, padding=size // 2) for size in k])

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], dim=1))


@register("scaled")
class C3SPP(C3):
    """:class:`C3` whose inner module is a pyramid pooling of the sizes ``k``."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13), *others: Any, **options: Any) -> None:
        super().__init__(c1, c2, *others, k=k, **options)

    def make_inner(  # type: ignore[override]
        self, width: int, n: int, shortcut: bool, g: int, *, k: Sequence[int]
    ) -> nn.Module:
        return SPP(width, width, k)


# --- ghost convolutions: "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907 ------------


@register("scaled")
class GhostConv(nn.Module):
    """Half of the channels by a convolution, the other half from those by a cheap depthwise 5x5."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, g=g, act=act)
        self.cv2 = Conv(half, half, k=5, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.cv1(x)
        return torch.cat([primary, self.cv2(primary)], dim=1)


@register("scaled")
class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a shortcut; at stride 2 a depthwise convolution shrinks both ways."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        hidden, shrinks = c2 // 2, s == 2
        middle = DWConv(hidden, hidden, k, s, act=False) if shrinks else nn.Identity()
        self.conv = nn.Sequential(GhostConv(c1, hidden), middle, GhostConv(hidden, c2, act=False))
        if shrinks:
            self.shortcut: nn.Module = nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, act=False))
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


@register("scaled_inner")
class C3Ghost(C3):
    """:class:`C3` of ghost bottlenecks."""

    def make_inner(self, width: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*[GhostBottleneck(width, width) for _ in range(n)])


# --- self-attention over the positions of a feature map --------------------------------------------------------------


class TransformerLayer(nn.Module):
    """Self-attention over the positions of a feature map, then two linear layers, each added to its input; no norms.

    Takes and returns [positions, B, c].
    """

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(c, c, bias=False) for _ in range(3))
        self.ma = nn.MultiheadAttention(c, num_heads)
        self.fc1, self.fc2 = nn.Linear(c, c, bias=False), nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        attended, _ = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)
        x = x + attended
        return x + self.fc2(self.fc1(x))


class TransformerBlock(nn.Module):
    """[B, c1, H, W] -> [B, c2, H, W] through ``num_layers`` transformer layers; positions by a learned linear layer."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*[TransformerLayer(c2, num_heads) for _ in range(num_layers)])

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        tokens = x.flatten(2).transpose(1, 2).transpose(0, 1)  # [H*W, B, c2]; ncnn has no movedim
        tokens = self.tr(tokens + self.linear(tokens))
        return tokens.transpose(0, 1).transpose(1, 2).reshape(x.shape)


@register("scaled_inner")
class C3TR(C3):
    """:class:`C3` whose inner module is a transformer of 4 heads."""

    def make_inner(self, width: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return TransformerBlock(width, width, num_heads=4, num_layers=n)


@register("scaled")
class Focus(nn.Module):
    """Move the four pixels of every 2x2 square to channels (half the height and width), then :class:`Conv`."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_unshuffle(x, 2)
        size = y.shape[2], y.shape[3]
        by_offset = y.reshape(y.shape[0], -1, 2, 2, *size)  # [B, c1, y, x, H/2, W/2]
        swapped = by_offset.permute(0, 3, 2, 1, 4, 5)  # x slowest, then y, then channel
        return self.conv(swapped.reshape(y.shape[0], -1, *size))


def swap_channels(x: Tensor, fast: int) -> Tensor:
    """[B, slow * fast, H, W], channel i * fast + j -> the same values, channel j * slow + i.

    By ``reshape``: of ``unflatten`` an ONNX file declares the sizes of the export, whatever axes are free.
    """
    size = x.shape[2], x.shape[3]
    return x.reshape(x.shape[0], -1, fast, *size).transpose(1, 2).reshape(x.shape[0], -1, *size)


@register("contract")
class Contract(nn.Module):
    """[B, c, H, W] -> [B, c*gain^2, H/gain, W/gain]; the place of a pixel in its square is the slow channel index."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return swap_channels(F.pixel_unshuffle(x, self.gain), self.gain**2)


@register("expand")
class Expand(nn.Module):
    """[B, c, H, W] -> [B, c/gain^2, H*gain, W*gain]; undoes :class:`Contract`."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(swap_channels(x, x.shape[1] // self.gain**2), self.gain)


class Classify(nn.Module):
    """Feature map, or a list of them -> class scores [B, c2]: mean over H and W, joined, then a convolution."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1) -> None:
        super().__init__()
        self.aap = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(c1, c2, kernel_size=k, stride=s, padding=autopad(k, p), groups=g)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        inputs = [x] if isinstance(x, Tensor) else x
        return self.flat(self.conv(torch.cat([self.aap(one) for one in inputs], dim=1)))
