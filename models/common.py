"""Building blocks of the models: convolution blocks, and dynamic convolution (:class:`Dynamic_conv2d`)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import KernelRouting, attention2d
from models.dynamic_forms import DynamicForm, constants_of, convolve, eager_form, export_form
from models.registry import register
from utils.core.v61 import import_served, served_names

TEMPERATURE = 34.0  # of a dynamic layer at its start, where its row in the model yaml gives none

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
    """Runs ``conv``, ``bn``, ``act``; which convolution it is, the class that inherits from here decides."""

    conv: nn.Module
    bn: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if "bn" in self._modules:  # gone once the norm is folded into the convolution
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
        self.conv = nn.Conv2d(c1, c2, kernel_size=k, stride=s, padding=autopad(k, p), groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(act)


@register("scaled")
class DWConv(Conv):
    """Depthwise :class:`Conv`: as many groups as both channel numbers can be divided into."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), act=act)


@register("scaled")
class Bottleneck(nn.Module):
    """1x1 squeeze to ``e`` of the width, 3x3 back, and the input added when it fits and ``shortcut`` asks for it."""

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
    """Cross-stage-partial block: one 1x1 branch through ``n`` bottlenecks, one past them, merged by a 1x1."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1, self.cv2 = Conv(c1, hidden), Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = nn.Sequential(*[Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        deep, direct = self.m(self.cv1(x)), self.cv2(x)
        return self.cv3(torch.cat([deep, direct], dim=1))


@register("scaled")
class SPPF(nn.Module):
    """Spatial pyramid pooling: three ``k`` max-pools in a row see k, 2k-1 and 3k-2 pixels; all four maps are merged."""

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(4 * hidden, c2)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, dim=1))


@register("concat")
class Concat(nn.Module):
    """Join a list of maps along one dimension (1: channels)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


# --- dynamic convolution: "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020, arXiv 1912.03458 -----


@register("scaled")
class Dynamic_conv2d(nn.Module):
    """Convolution whose kernel is mixed per image from K kernels: y_b = x_b * sum_k pi_bk W_k + sum_k pi_bk b_k.

    In a model yaml, ``[-1, 1, Dynamic_conv2d, [512, 1, 1]]`` means 512 outputs, kernel 1, attention **ratio** 1: the
    third number is the ratio, not the stride.

    Args:
        in_planes, out_planes, kernel_size, stride, padding, dilation, groups, bias: as for ``nn.Conv2d``.
        ratio: hidden width of the attention as a fraction of ``in_planes``.
        K: number of kernels.
        temperature: T of the softmax at the start; training lowers it by epoch.
        init_weight: Kaiming initialisation of attention and kernels; False uses the defaults of ``nn.Conv2d``.
        norm: a batch norm in the attention.
        residual: a static kernel ``static_weight`` that every image uses, plus the mixed ones, which start at zero:
            W0 + sum_k pi_bk W_k.
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
        temperature: float = TEMPERATURE,
        init_weight: bool = True,
        norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        whole = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "groups": groups, "K": K}
        for name, value in {**whole, "padding": padding}.items():
            least = 1 if name in whole else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if in_planes % groups or out_planes % groups:
            raise ValueError(f"groups={groups} must divide in_planes={in_planes} and out_planes={out_planes}")
        if bias not in (True, False):  # other programs have the ratio of the attention in its place
            raise ValueError(f"bias must be True or False, got {bias}")
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups, self.K = stride, padding, dilation, groups, K
        self._form: DynamicForm | None = None
        self.attention: Any = self._make_attention(ratio, temperature, init_weight, norm)
        self.weight = nn.Parameter(torch.empty(K, out_planes, in_planes // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(K, out_planes)) if bias else None
        for kernel in self.weight:  # each kernel its own draw: K equal copies would never learn to differ
            nn.init.kaiming_uniform_(kernel, a=0 if init_weight else 5**0.5)
        self.static_weight: nn.Parameter | None = None
        if residual:
            self.static_weight = nn.Parameter(self.weight[0].detach().clone())
            nn.init.zeros_(self.weight)

    def _make_attention(self, ratio: float, temperature: float, init_weight: bool, norm: bool) -> nn.Module:
        return attention2d(self.in_planes, ratio, self.K, temperature, init_weight, norm)

    @property
    def kernels(self) -> Tensor:
        """[K, out, in/g, k, k] to be mixed; the weights sum to one, so a static part is the same in each of them."""
        return self.weight if self.static_weight is None else self.weight + self.static_weight

    @torch.no_grad()
    def merge_static(self) -> None:
        """Add the static part, if there is one, to all kernels for good: the same layer with fewer parameters."""
        if self.static_weight is not None:
            self.weight.copy_(self.kernels)
            self.static_weight = None

    @property
    def routing(self) -> KernelRouting:
        """What gives the weights of the K kernels."""
        routing: KernelRouting = self.attention
        return routing

    def start_neutral(self, even: bool = True) -> float:
        """Scale all images by one factor, which is returned, and if ``even`` use the mean of the kernels for all."""
        if even:
            self.routing.start_uniform()
        return 1.0

    @property
    def form(self) -> DynamicForm:
        """The way of computing: the eager one, unless ``use_form`` has set another."""
        return eager_form(self) if self._form is None else self._form

    def use_form(self, wanted: DynamicForm) -> None:
        """Compute in another form from now on, for export; the weights must not change any more."""
        self._form = export_form(self, wanted)
        for name, constant in constants_of(self, self._form).items():
            self.register_buffer(f"_{name}", constant, persistent=False)

    @property
    def constants(self) -> dict[str, Tensor]:
        """The kernels made by ``use_form``."""
        return {name[1:]: buffer for name, buffer in self.named_buffers(recurse=False)}

    def update_temperature(self) -> None:
        self.attention.update_temperature()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        if x.shape[0] == 0:
            return self._of_nothing(x)
        pi = self.attention(x).to(self.weight.dtype)  # [B, K]
        return self._add_bias(convolve(self.form, self, x, pi), pi)

    def macs(self, x: Tensor, y: Tensor) -> int:
        """Multiply-adds of one call: routing, mixing of the K kernels, the convolution itself."""
        values = self.weight[0].numel() + (self.out_planes if self.bias is not None else 0)
        mixing = x.shape[0] * self.K * values
        return self.attention.macs(x) + mixing + y.numel() * self.weight[0, 0].numel()

    def _add_bias(self, y: Tensor, pi: Tensor) -> Tensor:
        """Added after the convolution: converters refuse a computed bias argument."""
        return y if self.bias is None else y + (pi @ self.bias)[:, :, None, None]

    def _of_nothing(self, x: Tensor) -> Tensor:
        """A batch of no images has no kernels to mix."""
        return F.conv2d(x, self.kernels[0], None, self.stride, self.padding, self.dilation, self.groups)


# For scripts that import all, as v6.1's own models did.
__all__ = [*served_names("models.common"), "Dynamic_conv2d", "attention2d", "nn", "torch"]


def __getattr__(name: str) -> Any:
    """Names that scripts import from here and that modules make which build on this one."""
    return import_served("models.common", name)
