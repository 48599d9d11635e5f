"""Folding batch norm into the convolution before it."""

from __future__ import annotations

import torch
from torch import nn

from models.common import Conv


def fuse_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution equal to ``bn(conv(x))``: w' = w * s, b' = beta + (b - mean) * s with s = g / sqrt(var + eps)."""
    assert bn.running_mean is not None and bn.running_var is not None
    gain = bn.weight.detach() * torch.rsqrt(bn.running_var + bn.eps)  # [out]
    fused = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=True,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    ).requires_grad_(False)
    before = conv.bias.detach() if conv.bias is not None else torch.zeros_like(bn.running_mean)
    fused.weight.copy_(conv.weight.detach() * gain[:, None, None, None])
    assert fused.bias is not None
    fused.bias.copy_(bn.bias.detach() + (before - bn.running_mean) * gain)
    return fused


def fuse(model: nn.Module) -> nn.Module:
    """Fold every :class:`Conv` in place, for inference; dynamic layers stay as they are. Returns ``model``."""
    for module in model.modules():
        if isinstance(module, Conv) and "bn" in module._modules:
            module.conv = fuse_conv_bn(module.conv, module.bn)
            del module.bn
    return model.requires_grad_(False)
