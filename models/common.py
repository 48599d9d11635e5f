"""Building blocks of the models: convolution blocks, and dynamic convolution (:class:`Dynamic_conv2d`)."""

from __future__ import annotations

import enum
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.registry import register


def autopad(kernel: int, padding: int | None = None) -> int:
    """Padding that keeps the size at stride 1 for an odd kernel, unless one is given."""
    return kernel // 2 if padding is None else padding


@register("scaled")
class Conv(nn.Module):
    """Convolution without bias, batch norm, activation.

    Args:
        c1, c2: input and output channels.
        k, s: kernel and stride.
        p: padding; ``None`` keeps the size at stride 1.
        g: groups.
        act: True for SiLU, False for none, or a module.
    """

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, kernel_size=k, stride=s, padding=autopad(k, p), groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        if isinstance(act, nn.Module):
            self.act = act
        else:
            self.act = nn.SiLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if "bn" in self._modules:  # gone once the norm is folded into the convolution
            y = self.bn(y)
        return self.act(y)


@register("scaled")
class Bottleneck(nn.Module):
    """1x1 squeeze to ``e`` of the width, 3x3 back, and the input added when it fits and ``shortcut`` asks for it."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden, c2, k=3, g=g)
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


class attention2d(nn.Module):
    """Weights of the K kernels for each picture: softmax(fc2(relu(fc1(mean over the map))) / T).

    Args:
        in_planes: input channels.
        ratios: hidden width as a fraction of ``in_planes`` (3 input channels use K hidden units instead; at least 1).
        K: number of kernels.
        temperature: T at the start; a persistent buffer, so that a checkpoint carries it.
        init_weight: Kaiming-normal convolutions; False leaves torch's default.
    """

    no_weight_decay = True  # decay would push the attention back to uniform, that is to a plain convolution
    step = 3.0

    def __init__(self, in_planes: int, ratios: float, K: int, temperature: float, init_weight: bool = True) -> None:
        super().__init__()
        if temperature < 1:
            raise ValueError(f"temperature must be at least 1, got {temperature}")
        hidden = K if in_planes == 3 else max(1, int(in_planes * ratios))
        self.fc1 = nn.Conv2d(in_planes, hidden, kernel_size=1, bias=False)
        self.fc2 = nn.Conv2d(hidden, K, kernel_size=1, bias=False)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        if init_weight:
            for layer in (self.fc1, self.fc2):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K], each row sums to one. The softmax runs in at least float32."""
        pooled = x.mean(dim=(2, 3), keepdim=True)
        logits = self.fc2(F.relu(self.fc1(pooled))).flatten(1)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return torch.softmax(logits.to(wide) / self.temperature, dim=1)

    def set_temperature(self, temperature: float) -> None:
        self.temperature.fill_(max(1.0, float(temperature)))

    def update_temperature(self) -> None:
        """Lower T by one step of 3, never below 1."""
        self.set_temperature(float(self.temperature) - self.step)

    updata_temperature = update_temperature  # the name older code calls

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> attention2d:
        exact = self.temperature
        super()._apply(fn, recurse)
        if not exact.is_meta:  # half() must not round T
            self.temperature = exact.to(self.temperature.device)
        return self


class DynamicForm(enum.Enum):
    """Ways to compute the same dynamic convolution."""

    GROUPED = "A"  # mix the kernels, fold the batch into the channels, one convolution with groups = batch
    MATMUL = "B"  # 1x1, stride 1: mix the kernels, then one matrix product per picture


@register("scaled")
class Dynamic_conv2d(nn.Module):
    """Convolution whose kernel is mixed per picture from K kernels: y_b = x_b * sum_k pi_bk W_k + sum_k pi_bk b_k.

    In a model yaml, ``[-1, 1, Dynamic_conv2d, [512, 1, 1]]`` means 512 outputs, kernel 1, attention **ratio** 1: the
    third number is the ratio, not the stride.

    Args:
        in_planes, out_planes, kernel_size, stride, padding, dilation, groups, bias: as for ``nn.Conv2d``.
        ratio: hidden width of the attention as a fraction of ``in_planes``.
        K: number of kernels.
        temperature: T of the softmax at the start; training lowers it by epoch.
        init_weight: Kaiming initialisation of attention and kernels; False uses the defaults of ``nn.Conv2d``.
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
        temperature: float = 34,
        init_weight: bool = True,
    ) -> None:
        super().__init__()
        if in_planes % groups or out_planes % groups:
            raise ValueError(f"groups={groups} must divide in_planes={in_planes} and out_planes={out_planes}")
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups, self.K = stride, padding, dilation, groups, K
        self.attention = attention2d(in_planes, ratio, K, temperature, init_weight)
        self.weight = nn.Parameter(torch.empty(K, out_planes, in_planes // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(K, out_planes)) if bias else None
        for kernel in self.weight:  # each kernel its own draw: K equal copies would never learn to differ
            nn.init.kaiming_uniform_(kernel, a=0 if init_weight else 5**0.5)

    @property
    def form(self) -> DynamicForm:
        """The one place where the way of computing is chosen, by tests/benchmarks/dynamic_forms.py."""
        pointwise = self.kernel_size == 1 and self.stride == 1 and self.padding == 0 and self.groups == 1
        return DynamicForm.MATMUL if pointwise else DynamicForm.GROUPED

    def update_temperature(self) -> None:
        self.attention.update_temperature()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        if x.shape[0] == 0:
            return self._static(x, self.weight[0])
        pi = self.attention(x).to(self.weight.dtype)  # [B, K]
        mixed = (pi @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])  # [B, out, in/g, k, k]
        y = self._matmul(x, mixed) if self.form is DynamicForm.MATMUL else self._grouped(x, mixed)
        if self.bias is not None:  # added afterwards: converters refuse a computed bias argument
            y = y + (pi @ self.bias)[:, :, None, None]
        return y

    def _static(self, x: Tensor, kernel: Tensor, groups: int | None = None) -> Tensor:
        groups = self.groups if groups is None else groups
        return F.conv2d(x, kernel, None, self.stride, self.padding, self.dilation, groups)

    def _grouped(self, x: Tensor, mixed: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        side_by_side = x.reshape(1, -1, height, width)  # [1, B*in, H, W]
        y = self._static(side_by_side, mixed.flatten(0, 1), batch * self.groups)
        return y.view(batch, self.out_planes, *y.shape[2:])

    def _matmul(self, x: Tensor, mixed: Tensor) -> Tensor:
        y = torch.bmm(mixed.flatten(2), x.flatten(2).to(mixed.dtype))  # [B, out, in] @ [B, in, H*W]
        return y.view(x.shape[0], self.out_planes, *x.shape[2:])
