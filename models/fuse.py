"""Folding batch norm into the convolution before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import attention2d
from models.common import ConvNormAct, Dynamic_conv2d


def gain_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a norm in evaluation does to a channel, y = gain * x + shift: g / sqrt(var + eps), beta - mean * gain."""
    assert bn.running_mean is not None and bn.running_var is not None
    gain = bn.weight.detach() * torch.rsqrt(bn.running_var + bn.eps)
    return gain, bn.bias.detach() - bn.running_mean * gain


def fuse_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution equal to ``bn(conv(x))``: w' = gain * w, b' = gain * b + shift."""
    gain, shift = gain_and_shift(bn)
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
    fused.weight.copy_(conv.weight.detach() * gain[:, None, None, None])
    assert fused.bias is not None
    fused.bias.copy_(shift if conv.bias is None else conv.bias.detach() * gain + shift)
    return fused


@torch.no_grad()
def fold_into_kernels(conv: Dynamic_conv2d, bn: nn.BatchNorm2d) -> Dynamic_conv2d:
    """Make ``conv`` equal to ``bn(conv(x))``, in place: all kernels times the gain, all biases plus the shift.

    Exact because the weights of the kernels sum to one, so that K times the same shift mixes to that shift.

    Raises:
        ValueError: the routing's weights do not sum to one (sigmoid): the shift would be scaled by their sum.
    """
    if not conv.routing.sums_to_one:
        raise ValueError(f"a norm cannot be folded behind {type(conv.routing).__name__}: its weights do not sum to one")
    gain, shift = gain_and_shift(bn)
    conv.merge_static()
    conv.weight.mul_(gain[:, None, None, None])
    before = torch.zeros_like(shift).expand(conv.K, -1) if conv.bias is None else conv.bias
    conv.bias = nn.Parameter(before * gain + shift)
    return conv


def fuse(model: nn.Module) -> nn.Module:
    """Fold every norm that can be, in place, for inference; behind sigmoid routing it stays. Returns ``model``."""
    for module in model.modules():
        if isinstance(module, Dynamic_conv2d):
            module.merge_static()
        if isinstance(module, attention2d) and "bn" in module._modules:
            module.fc1 = fuse_conv_bn(module.fc1, module.bn)
            del module.bn
        if not isinstance(module, ConvNormAct) or "bn" not in module._modules:
            continue
        conv, bn = module.conv, module.bn
        assert isinstance(bn, nn.BatchNorm2d)
        if isinstance(conv, nn.Conv2d):
            module.conv = fuse_conv_bn(conv, bn)
        elif isinstance(conv, Dynamic_conv2d) and conv.routing.sums_to_one:
            fold_into_kernels(conv, bn)
        else:
            continue
        del module.bn
    return model.requires_grad_(False)
