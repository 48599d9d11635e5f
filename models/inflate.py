"""Inflation: a dynamic layer that starts as the static convolution it takes the place of.

Each of the K kernels is the static kernel plus a random part of its own; the parts add up to zero over the K.
The routing starts with the weight 1/K for every kernel and every picture, at any temperature. So the kernel in use is
the static one (to float32 rounding, about 1e-6 of its values), and training can tell the kernels apart at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.common import Dynamic_conv2d
from models.fuse import gain_and_shift

# Size of the random parts in standard deviations of the static kernel. They do not change the start; the routing learns
# in proportion to them: at 0.1 it had not moved after a fine-tuning of 70 optimizer steps.
SPREAD = 0.5


@dataclass(frozen=True)
class Inflated:
    """A dynamic layer that was filled: its tensors, and the tensors of the source it took."""

    layer: str
    tensors: tuple[str, ...]
    used: tuple[str, ...]
    lost_activation: bool  # the source was convolution, norm and activation, the layer has no activation


@torch.no_grad()
def inflate(
    model: nn.Module, source: Mapping[str, Tensor], seed: int = 0, spread: float = SPREAD
) -> Iterator[Inflated]:
    """Fill every dynamic layer of ``model`` for which ``source`` has a static convolution of its name and size.

    A plain :class:`~models.common.Dynamic_conv2d` in the place of a whole ``Conv`` gets its convolution with the norm
    folded in; the activation of that ``Conv`` has no counterpart.

    Args:
        source: state dict of the static model.
        seed: of the random parts.
        spread: their size; 0 leaves K equal kernels, which can never learn to differ.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, layer in model.named_modules():
        if not isinstance(layer, Dynamic_conv2d):
            continue
        found = _static_of(name, layer, source)
        if found is None:
            continue
        kernel, bias, used, lost_activation = found
        kernel = kernel.float() / layer.start_neutral()
        noise = torch.randn(layer.weight.shape, generator=generator) * (spread * kernel.std())
        layer.weight.copy_(kernel + noise - noise.mean(0))
        if layer.bias is not None:
            layer.bias.copy_(torch.zeros(layer.out_planes) if bias is None else bias.float())
        tensors = tuple(f"{name}.{key}" for key in layer.state_dict() if not key.endswith("temperature"))
        yield Inflated(name, tensors, used, lost_activation)


def _static_of(
    name: str, layer: Dynamic_conv2d, source: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None, tuple[str, ...], bool] | None:
    """Kernel [out, in/g, k, k], bias [out], the names they come from, and whether an activation was left behind."""
    shape = layer.weight.shape[1:]
    weight, bias = source.get(f"{name}.weight"), source.get(f"{name}.bias")
    if weight is not None and weight.shape == shape and (bias is None or layer.bias is not None):
        return weight, bias, tuple(k for k in (f"{name}.weight", f"{name}.bias") if k in source), False
    weight = source.get(f"{name}.conv.weight")
    if weight is None or weight.shape != shape or layer.bias is None or f"{name}.bn.running_var" not in source:
        return None
    bn = nn.BatchNorm2d(layer.out_planes, eps=1e-3)
    used = [f"{name}.conv.weight", *(f"{name}.bn.{key}" for key in bn.state_dict())]
    bn.load_state_dict({key: source[f"{name}.bn.{key}"] for key in bn.state_dict()})
    gain, shift = gain_and_shift(bn)
    return weight.float() * gain[:, None, None, None], shift, tuple(used), True
