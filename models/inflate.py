"""Start of a dynamic layer as the static convolution in whose place it stands ("inflation").

Where the weights of the kernels sum to one, each of the K kernels is the static kernel, and the routing is not uniform:
as drawn, or calibrated on some images (:func:`calibrate_routing`). The mixed kernel is the static one whatever the
weights, at any temperature, to float32 rounding; the kernels get different gradients, so they differ from the first
step on.

With sigmoid routing, or a ``spread`` above 0, every kernel is the static one plus its own random part; the parts add up
to zero over the K, and the routing starts with the weight 1/K for every kernel and every image. That start is a saddle
point: with a uniform routing the kernels get equal gradients, with almost equal kernels the routing gets hardly any.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.attention import KernelRouting
from models.dynamic import attention_layers
from models.dynamic_convolution import DynamicConvolution
from models.fuse import gain_and_shift

DEVIATION = 2.0  # of the logits of a calibrated routing: an entropy of about half of ln K at T = 1
SIGMOID_SPREAD = 0.5  # behind a sigmoid routing, in standard deviations of the static kernel


@dataclass(frozen=True)
class InflatedLayer:
    """A dynamic layer that was filled: its tensors, and the tensors of the source that they come from."""

    layer: str
    tensors: tuple[str, ...]
    used: tuple[str, ...]
    lost_activation: bool  # the source was convolution, norm and activation, the layer has no activation


@torch.no_grad()
def inflate(
    model: nn.Module, source: Mapping[str, Tensor], seed: int = 0, spread: float = 0.0
) -> Iterator[InflatedLayer]:
    """Fill every dynamic layer of ``model`` for which ``source`` has a static convolution of its name and size.

    A bare :class:`~models.common.Dynamic_conv2d` in the place of a whole ``Conv`` gets its convolution with the norm
    folded in; the activation of that ``Conv`` has no counterpart.

    Args:
        source: state dict of the static model.
        seed: of the random parts.
        spread: their size in standard deviations of the static kernel; 0 makes equal kernels and leaves the routing
            as it is, except for a sigmoid routing, whose weights must be 1/K.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, layer in model.named_modules():
        static = _static_convolution(name, layer, source) if isinstance(layer, DynamicConvolution) else None
        if static is None:
            continue
        assert isinstance(layer, DynamicConvolution)
        kernel, bias, used, lost_activation = static
        even = spread > 0 or not layer.routing.sums_to_one
        kernel = kernel.float() / layer.start_neutral(even)
        size = (spread or SIGMOID_SPREAD) if even else 0.0
        noise = torch.randn(layer.weight.shape, generator=generator) * (size * kernel.std())
        if layer.static_weight is not None:
            layer.static_weight.copy_(kernel)
            kernel = torch.zeros_like(kernel)
        layer.weight.copy_(kernel + noise - noise.mean(0))
        if layer.bias is not None:
            layer.bias.copy_(torch.zeros(layer.out_planes) if bias is None else bias.float())
        tensors = tuple(f"{name}.{key}" for key in layer.state_dict() if not key.endswith("temperature"))
        yield InflatedLayer(name, tensors, used, lost_activation)


@torch.no_grad()
def calibrate_routing(
    model: nn.Module, batches: Iterable[Tensor], deviation: float = DEVIATION, layers: Iterable[str] | None = None
) -> int:
    """Give the logits of softmax routings mean 0 and a standard deviation over the images of ``batches``.

    The drawn weights are shifted and scaled, not drawn anew: the same model and images give the same start. Each layer
    is calibrated on its input in the model as it was before.

    Args:
        model: any mode; the inputs of its routings are taken in training mode, from a copy.
        batches: images [B, C, H, W] in 0..1, at least two in all.
        deviation: 0 makes the routing uniform.
        layers: names of the dynamic layers; None: all.

    Returns:
        Number of calibrated routings.
    """
    wanted = None if layers is None else tuple(f"{name}." for name in layers)
    routings = {
        name: routing
        for name, routing in attention_layers(model)
        if routing.sums_to_one and (wanted is None or name.startswith(wanted))
    }
    if not routings:
        return 0
    if not deviation:
        for routing in routings.values():
            routing.start_uniform()
        return len(routings)
    observed = copy.deepcopy(model).train()
    inputs: dict[str, list[Tensor]] = {name: [] for name in routings}
    for name, routing in attention_layers(observed):
        if name in routings:
            routing.register_forward_pre_hook(partial(_keep_pooled, inputs[name]))
    for images in batches:
        observed(images)
    for name, routing in routings.items():
        training = routing.training
        routing.train().calibrate(torch.cat(inputs[name]), deviation)
        routing.train(training)
    return len(routings)


def _keep_pooled(kept: list[Tensor], routing: KernelRouting, args: tuple[Tensor, ...]) -> None:
    kept.append(args[0].float().mean(dim=(2, 3), keepdim=True))


def _static_convolution(
    name: str, layer: DynamicConvolution, source: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None, tuple[str, ...], bool] | None:
    """Kernel [out, in/g, k, k], bias [out], the names they come from, and whether an activation is lost."""
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
