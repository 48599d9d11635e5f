"""Blocks made of dynamic convolutions, and functions over all dynamic layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from models.attention import KernelRouting
from models.common import C3, Bottleneck, ConvNormAct, Dynamic_conv2d, activation, autopad
from models.dynamic_convolution import DynamicConvolution, DynamicForm
from models.registry import register
from utils.core.errors import InputError


def attention_layers(model: nn.Module) -> Iterator[tuple[str, KernelRouting]]:
    """Name and module of every routing in ``model``; called, such a module returns the weights [B, K]."""
    for name, module in model.named_modules():
        if isinstance(module, KernelRouting):
            yield name, module


def set_temperature(model: nn.Module, temperature: float) -> int:
    """Set the softmax temperature of every dynamic layer; returns how many have one."""
    with_temperature = [layer for _, layer in attention_layers(model) if layer.temperature is not None]
    for layer in with_temperature:
        layer.set_temperature(temperature)
    return len(with_temperature)


def temperatures(model: nn.Module) -> list[float]:
    """The different temperatures of the model's dynamic layers, rising; one at most, unless a yaml gives more."""
    return sorted({float(layer.temperature) for _, layer in attention_layers(model) if layer.temperature is not None})


def get_temperature(model: nn.Module) -> float | None:
    """The temperature of the model's dynamic layers, or None when no layer has one.

    Raises:
        InputError: layers have different ones, as they may before any training.
    """
    different = temperatures(model)
    if len(different) > 1:
        raise InputError(f"dynamic layers have different temperatures: {', '.join(f'{t:g}' for t in different)}")
    return different[0] if different else None


def use_form(model: nn.Module, form: DynamicForm) -> dict[str, DynamicForm]:
    """Let every dynamic layer compute in ``form`` (F where B is impossible); returns the form of each, by name."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, DynamicConvolution)}
    for layer in layers.values():
        layer.use_form(form)
    return {name: layer.form for name, layer in layers.items()}


class DynamicBlock(ConvNormAct):
    """A dynamic convolution of some ``kind``, batch norm, activation: the arguments of :class:`~models.common.Conv`.

    A row of a model yaml becomes dynamic by its name alone; ``{K: 8}`` at the end of its arguments sets an option.

    Args:
        c1, c2, k, s, p, g, act: as for ``Conv``.
        options: arguments of ``kind`` beyond those of ``nn.Conv2d``, by name.
    """

    kind: type[DynamicConvolution]

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self.conv = self.kind(c1, c2, k, stride=s, padding=autopad(k, p), groups=g, bias=False, **options)
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(act)


@register("scaled")
class DynamicConv(DynamicBlock):
    """:class:`~models.common.Dynamic_conv2d` as a block; options: K, ratio, temperature, norm, residual."""

    kind = Dynamic_conv2d


@register("scaled")
class DynamicBottleneck(Bottleneck):
    """:class:`~models.common.Bottleneck` whose 3x3 convolution is dynamic; ``options`` as for DynamicConv."""

    def __init__(
        self,
        c1: int,
        c2: int,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        K: int = 4,
        ratio: float = 0.25,
        **options: Any,
    ) -> None:
        super().__init__(c1, c2, shortcut, g, e)
        self.cv2 = DynamicConv(int(c2 * e), c2, k=3, g=g, K=K, ratio=ratio, **options)


@register("scaled_inner")
class C3Dynamic(C3):
    """:class:`~models.common.C3` of dynamic bottlenecks; further arguments: K, ratio, options of DynamicConv."""

    def make_inner(self, width: int, n: int, shortcut: bool, g: int, *others: Any, **options: Any) -> nn.Module:
        return nn.Sequential(*[DynamicBottleneck(width, width, shortcut, g, 1.0, *others, **options) for _ in range(n)])
