"""Building blocks of the models: convolution blocks, and dynamic convolution (:class:`Dynamic_conv2d`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.attention import attention2d
from models.dynamic_convolution import DEFAULT_TEMPERATURE, DynamicConvolution
from models.registry import register
from utils.core.v61 import import_served, served_names

KernelSize = int | tuple[int, int]  # one number, or (height, width)


def autopad(kernel: KernelSize, padding: int | None = None) -> Any:
    """Padding that keeps the size at stride 1 for an odd kernel, unless one is given."""
    if padding is not None:
        return padding
    return kernel // 2 if isinstance(kernel, int) else tuple(side // 2 for side in kernel)


def activation(act: bool | nn.Module) -> nn.Module:
    """True for SiLU, False for none, or the module itself."""
    if isinstance(act, nn.Module):
        return act
    return nn.SiLU() if act else nn.Identity()


class ConvNormAct(nn.Module):
    """Base of blocks with a convolution ``conv``, a norm ``bn`` and an activation ``act``, which a subclass makes."""

    conv: nn.Module
    bn: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if "bn" in self._modules:  # removed when it is folded into the convolution
            y = self.bn(y)
        return self.act(y)


@register("scaled")
class Conv(ConvNormAct):
    """Convolution without bias, batch norm, activation.

    Args:
        c1, c2: input and output channels.
        k, s: kernel and stride.
        p: padding; ``None`` keeps the size at stride 1.
        g: groups.
        act: True for SiLU, False for none, or a module.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: KernelSize = 1,
        s: KernelSize = 1,
        p: int | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p), groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(act)


@register("scaled")
class DWConv(Conv):
    """Depthwise :class:`Conv`: as many groups as both channel numbers can be divided into."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), act=act)


@register("scaled")
class Bottleneck(nn.Module):
    """1x1 squeeze to ``e`` of the width, 3x3 back; with ``shortcut`` the input is added where it has c2 channels."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2: ConvNormAct = Conv(hidden, c2, k=3, g=g)
        self.add = bool(shortcut) and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        branch = self.cv2(self.cv1(x))
        return branch + x if self.add else branch


@register("scaled_inner")
class C3(nn.Module):
    """Cross-stage-partial block: one 1x1 branch through an inner module, one past it, merged by a 1x1.

    Args:
        c1, c2: input and output channels.
        n: inner blocks in a row.
        shortcut, g: of the inner blocks.
        e: width of the branches as a fraction of ``c2``.
        others, options: arguments of the inner blocks of a subclass, see ``make_inner``.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *others: Any,
        **options: Any,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1, self.cv2 = Conv(c1, hidden), Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = self.make_inner(hidden, n, shortcut, g, *others, **options)

    def make_inner(self, width: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """The inner module, ``width`` to ``width`` channels."""
        return nn.Sequential(*[Bottleneck(width, width, shortcut, g, e=1.0) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        deep, direct = self.m(self.cv1(x)), self.cv2(x)
        return self.cv3(torch.cat([deep, direct], dim=1))


@register("scaled")
class SPPF(nn.Module):
    """Spatial pyramid pooling: three ``k`` max-pools in a row cover k, 2k-1 and 3k-2 pixels; all four are merged."""

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(4 * hidden, c2)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, dim=1))


@register("concat")
class Concat(nn.Module):
    """Join a list of feature maps along one dimension (1: channels)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


@register("scaled")
class Dynamic_conv2d(DynamicConvolution):
    """Dynamic layer with a softmax routing: "Attention over Convolution Kernels", CVPR 2020, arXiv 1912.03458.

    In a model yaml, ``[-1, 1, Dynamic_conv2d, [512, 1, 1]]`` means 512 outputs, kernel 1, attention **ratio** 1: the
    third number is the ratio, not the stride.

    Args:
        in_planes, out_planes, kernel_size, stride, padding, dilation, groups, bias: as for ``nn.Conv2d``.
        ratio: hidden width of the attention as a fraction of ``in_planes``.
        K: number of kernels.
        temperature: T of the softmax at the start; training lowers it.
        init_weight: Kaiming initialisation of attention and kernels; False uses the defaults of ``nn.Conv2d``.
        norm: a batch norm in the attention.
        residual: a static kernel plus the mixed ones, see :class:`DynamicConvolution`.
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int,
        ratio: float = 0.25,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        K: int = 4,
        temperature: float = DEFAULT_TEMPERATURE,
        init_weight: bool = True,
        norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__(
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            K,
            temperature,
            ratio=ratio,
            norm=norm,
            init_attention=init_weight,
            init_weight=init_weight,
            residual=residual,
        )

    def make_attention(
        self,
        temperature: float,
        *,
        ratio: float,
        norm: bool,
        init_attention: bool,
    ) -> nn.Module:
        return attention2d(self.in_planes, ratio, self.K, temperature, init_attention, norm)


# For scripts that import all, as v6.1's own models did.
__all__ = [*served_names("models.common"), "Dynamic_conv2d", "attention2d", "nn", "torch"]


def __getattr__(name: str) -> Any:
    """Names that scripts import from here and that modules make which build on this one."""
    return import_served("models.common", name)
