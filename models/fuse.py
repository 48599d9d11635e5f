"""Folding batch norm into the convolution before it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.attention import attention2d
from models.common import ConvNormAct
from models.dynamic_convolution import DynamicConvolution


def gain_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A norm in evaluation is y = gain * x + shift per channel: g / sqrt(var + eps), beta - mean * gain."""
    assert bn.running_mean is not None and bn.running_var is not None
    gain = bn.weight.detach() * torch.rsqrt(bn.running_var + bn.eps)
    return gain, bn.bias.detach() - bn.running_mean * gain


def fuse_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution equal to ``bn(conv(x))``: w' = gain * w, b' = gain * b + shift."""
    gain, shift = gain_and_shift(bn)
    fused = copy.deepcopy(conv).requires_grad_(False)
    fused.weight.mul_(gain[:, None, None, None])
    bias = shift if fused.bias is None else fused.bias * gain + shift
    fused.bias = nn.Parameter(bias.to(fused.weight.dtype), requires_grad=False)
    return fused


@torch.no_grad()
def fold_into_kernels(conv: DynamicConvolution, bn: nn.BatchNorm2d) -> DynamicConvolution:
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
    """Fold every norm, in place, for inference; behind sigmoid routing it stays. Returns ``model``."""
    for module in model.modules():
        if isinstance(module, DynamicConvolution):
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
        elif isinstance(conv, DynamicConvolution) and conv.routing.sums_to_one:
            fold_into_kernels(conv, bn)
        else:
            continue
        del module.bn
    return model.requires_grad_(False)
