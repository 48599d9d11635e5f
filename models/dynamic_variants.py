"""Other dynamic convolutions in the place of :class:`~models.common.Dynamic_conv2d`, and Squeeze-and-Excitation.

Dynamic convolutions differ only in how an image chooses its kernel; mixing, forms and blocks are shared.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import KernelRouting, PooledNorm, calibrate_logits
from models.common import C3, Bottleneck, Conv, KernelSize
from models.dynamic import DynamicBlock
from models.dynamic_convolution import DEFAULT_TEMPERATURE, DynamicConvolution
from models.registry import register


def zero(layer: nn.Module) -> None:
    """Set the weight and the bias of a layer to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class SigmoidRouting(KernelRouting):
    """Weights of K experts: sigmoid(linear(mean over H and W)). They are independent: they do not sum to one."""

    sums_to_one = False

    def __init__(self, in_planes: int, K: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_planes, K)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K], each in 0..1."""
        return torch.sigmoid(self.fc(x.mean(dim=(2, 3))))

    def start_uniform(self) -> None:
        nn.init.zeros_(self.fc.weight)
        nn.init.constant_(self.fc.bias, torch.logit(torch.tensor(1 / self.fc.out_features)).item())


@register("scaled")
class CondConv2d(DynamicConvolution):
    """Convolution with a kernel mixed from K experts: "CondConv", NeurIPS 2019, arXiv 1904.04971."""

    def make_attention(self) -> nn.Module:
        return SigmoidRouting(self.in_planes, self.K)


class OmniKernelRouting(KernelRouting):
    """The kernel attention of ODConv: softmax over K of a linear function of the squeezed image [B, hidden, 1, 1]."""

    def __init__(self, hidden: int, K: int, temperature: float) -> None:
        super().__init__(temperature)
        self.fc = nn.Conv2d(hidden, K, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.fc(x).flatten(1))

    def start_uniform(self) -> None:
        zero(self.fc)

    def calibrate(self, x: Tensor, deviation: float) -> None:
        calibrate_logits(self.fc, x, deviation)


class OmniAttention(nn.Module):
    """The four attentions of ODConv from one squeezed description of the image.

    Args:
        norm: a batch norm after the squeeze; the published formula has none.
    """

    no_weight_decay = True

    def __init__(
        self, in_planes: int, out_planes: int, kernel_size: int, ratio: float, K: int, T: float, norm: bool
    ) -> None:
        super().__init__()
        hidden = max(16, int(in_planes * ratio))
        self.squeeze = nn.Conv2d(in_planes, hidden, kernel_size=1)
        self.bn = PooledNorm(hidden) if norm else nn.Identity()
        self.channel = nn.Conv2d(hidden, in_planes, kernel_size=1)
        self.filter = nn.Conv2d(hidden, out_planes, kernel_size=1)
        self.spatial = nn.Conv2d(hidden, kernel_size**2, kernel_size=1) if kernel_size > 1 else None
        self.kernel = OmniKernelRouting(hidden, K, T)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """[B, C, H, W] -> over inputs [B, C, 1, 1], outputs [B, out, 1, 1], places [B, 1, 1, k, k], kernels [B, K]."""
        z = F.relu(self.bn(self.squeeze(x.mean(dim=(2, 3), keepdim=True))))
        spatial = None
        if self.spatial is not None:
            places = torch.sigmoid(self.spatial(z))
            side = round(self.spatial.out_channels**0.5)
            spatial = places.view(-1, 1, 1, side, side)
        return torch.sigmoid(self.channel(z)), torch.sigmoid(self.filter(z)), spatial, self.kernel(z)

    def macs(self, x: Tensor) -> int:
        """Multiply-adds of one call: the mean over H and W, every weight once per image, the inputs weighted."""
        return 2 * x.numel() + x.shape[0] * sum(p.numel() for p in self.parameters() if p.dim() > 1)


@register("scaled")
class ODConv2d(DynamicConvolution):
    """Attention along all dimensions of the kernels: "Omni-Dimensional Dynamic Convolution", ICLR 2022.

    y = f * conv(c * x, sum_k pi_k (s * W_k)) with f over output channels, c over input channels, s over the places of
    the kernel (sigmoids) and pi over the K kernels (softmax at temperature T).

    Args after those of :class:`DynamicConvolution`:
        ratio: hidden width of the attentions as a fraction of ``in_planes``, at least 16 channels.
        temperature: T at the start.
        norm: a batch norm in the attention.
    """

    def make_attention(
        self, ratio: float = 1 / 16, temperature: float = DEFAULT_TEMPERATURE, norm: bool = False
    ) -> nn.Module:
        return OmniAttention(self.in_planes, self.out_planes, self.kernel_size, ratio, self.K, temperature, norm)

    @property
    def routing(self) -> KernelRouting:
        routing: KernelRouting = self.attention.kernel
        return routing

    def start_neutral(self, even: bool = True) -> float:
        factor = super().start_neutral(even)
        for attention in (self.attention.channel, self.attention.filter, self.attention.spatial):
            if attention is not None:
                zero(attention)
                factor *= 0.5  # sigmoid(0)
        return factor

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        if x.shape[0] == 0:
            return self._without_images(x)
        channel, filters, spatial, pi = self.attention(x)
        pi = pi.to(self.weight.dtype)
        y = self.convolve(x * channel, pi, spatial) * filters
        return self._add_bias(y, pi)

    def macs(self, x: Tensor, y: Tensor) -> int:
        places = x.shape[0] * self.weight[0].numel() if self.kernel_size > 1 else 0
        return super().macs(x, y) + y.numel() + places


@register("scaled")
class CondConv(DynamicBlock):
    """:class:`CondConv2d` as a block; option: K (4)."""

    kind = CondConv2d


@register("scaled")
class ODConv(DynamicBlock):
    """:class:`ODConv2d` as a block; options: K (4), ratio (1/16), temperature (34), norm, residual (False)."""

    kind = ODConv2d


class ChannelGate(nn.Module):
    """2 * sigmoid(fc2(relu(fc1(mean over H and W)))): a factor per image and channel, 1 at the start."""

    no_weight_decay = True

    def __init__(self, in_planes: int, out_planes: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, int(in_planes * ratio))
        self.fc1 = nn.Conv2d(in_planes, hidden, kernel_size=1)
        self.fc2 = nn.Conv2d(hidden, out_planes, kernel_size=1)
        zero(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, 1, 1]."""
        return 2 * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


@register("scaled")
class SEConv(Conv):
    """:class:`~models.common.Conv` with a factor per image and output channel: "Squeeze-and-Excitation", CVPR 2018.

    A comparison for :class:`~models.dynamic.DynamicConv`: as wide a hidden layer, but one kernel for all images. At the
    start it computes exactly what ``Conv`` computes.

    Args:
        c1, c2, k, s, p, g, act: as for ``Conv``.
        ratio: hidden width as a fraction of ``c1``.
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
        ratio: float = 0.25,
    ) -> None:
        super().__init__(c1, c2, k, s, p, g, act)
        self.gate = ChannelGate(c1, c2, ratio)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if "bn" in self._modules:
            y = self.bn(y)
        return self.act(y * self.gate(x))


@register("scaled")
class SEBottleneck(Bottleneck):
    """:class:`~models.common.Bottleneck` whose 3x3 convolution is an :class:`SEConv`."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5, ratio: float = 0.25
    ) -> None:
        super().__init__(c1, c2, shortcut, g, e)
        self.cv2 = SEConv(int(c2 * e), c2, k=3, g=g, ratio=ratio)


@register("scaled_inner")
class C3SE(C3):
    """:class:`~models.common.C3` of :class:`SEBottleneck`, whose ratio may follow as a further argument."""

    def make_inner(self, width: int, n: int, shortcut: bool, g: int, *others: Any, **options: Any) -> nn.Module:
        return nn.Sequential(*[SEBottleneck(width, width, shortcut, g, 1.0, *others, **options) for _ in range(n)])
