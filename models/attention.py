"""Routing of dynamic layers: for each image, the weights of the K kernels (arXiv 1912.03458)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KernelRouting(nn.Module):
    """Base of routings: modules from a feature map [B, C, H, W] to the weights of K kernels [B, K].

    Attributes:
        sums_to_one: whether the weights of an image do.
        temperature: divisor of the logits of a softmax; None in a routing without one.
    """

    no_weight_decay = True  # decay would push the routing back to uniform, that is to a plain convolution
    sums_to_one = True
    step = 3.0

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        if temperature is not None and not 1 <= temperature < math.inf:
            raise ValueError(f"temperature must be a number of at least 1, got {temperature}")
        self.temperature: Tensor | None
        self.register_buffer("temperature", None if temperature is None else torch.tensor(float(temperature)))

    def start_uniform(self) -> None:
        """Give every kernel the weight 1/K for every image, until training changes it."""
        raise NotImplementedError(f"{type(self).__name__} has no uniform start")

    def calibrate(self, x: Tensor, deviation: float) -> None:
        """Scale the logits to mean 0 and the standard ``deviation`` over n images.

        Only for routings with a softmax: their weights sum to one, so any start is as good as a uniform one.

        Args:
            x: [n, C, 1, 1], what arrives for the images.
        """
        raise NotImplementedError(f"{type(self).__name__} has no logits to calibrate")

    def softmax(self, logits: Tensor) -> Tensor:
        """Softmax of [B, K] at the temperature, in at least float32."""
        assert self.temperature is not None
        wide = torch.promote_types(logits.dtype, torch.float32)
        return torch.softmax(logits.to(wide) / self.temperature, dim=1)

    def set_temperature(self, temperature: float) -> None:
        """Set T to at least 1; without effect in a routing that has none."""
        if self.temperature is not None:
            self.temperature.fill_(max(1.0, float(temperature)))

    def update_temperature(self) -> None:
        """Lower T by one step of 3, never below 1."""
        if self.temperature is not None:
            self.set_temperature(float(self.temperature) - self.step)

    updata_temperature = update_temperature  # the name in older code

    def macs(self, x: Tensor) -> int:
        """Multiply-adds of one call on ``x`` [B, C, H, W]: the mean over H and W, and every weight once per image."""
        return x.numel() + x.shape[0] * sum(p.numel() for p in self.parameters() if p.dim() > 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KernelRouting:
        exact = self.temperature
        super()._apply(fn, recurse)
        if exact is not None and self.temperature is not None and not exact.is_meta:  # half() must not round T
            self.temperature = exact.to(self.temperature.device)
        return self


class PooledNorm(nn.BatchNorm2d):
    """Batch norm of one value per image and channel; a batch of one image is normalised by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


@torch.no_grad()
def centre_outputs(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Change a 1x1 convolution so that its outputs over x [n, C, 1, 1], n >= 2, have mean 0.

    The bias takes the mean. A layer without bias loses the part of its weights along the mean of ``x`` instead, unless
    nothing but that part would remain.

    Returns:
        The outputs, [n, out].
    """
    y = layer(x).flatten(1)
    if layer.bias is not None:
        layer.bias -= y.mean(0)
        return layer(x).flatten(1)
    mean, drawn = x.mean(0, keepdim=True), layer.weight.clone()  # [1, C, 1, 1], [out, C, 1, 1]
    layer.weight -= y.mean(0)[:, None, None, None] * mean / mean.square().sum().clamp_min(1e-12)
    centred = layer(x).flatten(1)
    if centred.std() < 1e-3 * y.std():
        layer.weight.copy_(drawn)
        return y
    return centred


@torch.no_grad()
def calibrate_logits(layer: nn.Conv2d, x: Tensor, deviation: float) -> None:
    """Change a 1x1 convolution so that each output has mean 0 and the standard ``deviation`` over x [n, C, 1, 1]."""
    spread = centre_outputs(layer, x).std(0)  # [out]
    layer.weight *= torch.where(spread > 1e-9, deviation / spread.clamp_min(1e-9), 1.0)[:, None, None, None]


class attention2d(KernelRouting):
    """Softmax routing of the paper: softmax(fc2(relu(fc1(mean over H and W))) / T).

    Args:
        in_planes: input channels.
        ratios: hidden width as a fraction of ``in_planes`` (3 input channels use K hidden units instead; at least 1).
        K: number of kernels.
        temperature: T at the start; a persistent buffer, so that a checkpoint carries it.
        init_weight: Kaiming-normal convolutions; False leaves torch's default.
        norm: a batch norm ``bn`` between fc1 and the relu.
    """

    def __init__(
        self, in_planes: int, ratios: float, K: int, temperature: float, init_weight: bool = True, norm: bool = False
    ) -> None:
        super().__init__(float(temperature))
        if not ratios > 0:
            raise ValueError(f"ratio must be above 0, got {ratios}")
        hidden = K if in_planes == 3 else max(1, int(in_planes * ratios))
        self.fc1 = nn.Conv2d(in_planes, hidden, kernel_size=1, bias=False)
        if norm:
            self.bn = PooledNorm(hidden)
        self.fc2 = nn.Conv2d(hidden, K, kernel_size=1, bias=False)
        if init_weight:
            for layer in (self.fc1, self.fc2):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K], each row sums to one."""
        return self.softmax(self.fc2(self.hidden(x.mean(dim=(2, 3), keepdim=True))).flatten(1))

    def hidden(self, pooled: Tensor) -> Tensor:
        """[B, C, 1, 1] -> [B, hidden, 1, 1]."""
        y = self.fc1(pooled)
        if "bn" in self._modules:  # removed when it is folded into fc1
            y = self.bn(y)
        return F.relu(y)

    def start_uniform(self) -> None:
        nn.init.zeros_(self.fc2.weight)

    @torch.no_grad()
    def calibrate(self, x: Tensor, deviation: float) -> None:
        if "bn" not in self._modules:
            centre_outputs(self.fc1, x)  # else about half of the hidden units would be 0 for every image
        calibrate_logits(self.fc2, self.hidden(x), deviation)
