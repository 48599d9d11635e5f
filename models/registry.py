"""How a yaml row becomes a layer.

A layer class says once, where it is defined, by which rule its row is read::

    @register("scaled")
    class MyConv(nn.Module): ...

and no other list of modules exists. A rule receives the row, the channels arriving from each source layer and the
width/depth scale of the model, and answers with a :class:`LayerPlan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from utils.errors import InputError, nearest


@dataclass(frozen=True)
class LayerRow:
    """One row ``[from, number, module, args]`` of a model yaml, with tokens and literals already resolved."""

    index: int
    sources: tuple[int, ...]
    number: int
    module: str
    args: tuple[Any, ...]
    origin: str  # "yolov5n.yaml: head row 3", for messages

    def fail(self, problem: str) -> InputError:
        return InputError(f"{self.origin} (layer {self.index}, {self.module}): {problem}")


@dataclass(frozen=True)
class Scale:
    """Width and depth multiples of a model family (n, s, m, l, x)."""

    depth: float = 1.0
    width: float = 1.0

    def repeats(self, number: int) -> int:
        return max(1, round(number * self.depth)) if number > 1 else number

    def channels(self, channels: int) -> int:
        return make_divisible(channels * self.width, 8)


@dataclass(frozen=True)
class LayerPlan:
    """What to build: constructor arguments, the channels that come out, how many copies stand in a row."""

    args: tuple[Any, ...]
    out_channels: int
    copies: int = 1


Rule = Callable[[LayerRow, Sequence[int], Scale], LayerPlan]


@dataclass(frozen=True)
class Registered:
    cls: type[nn.Module]
    rule: Rule


LAYERS: dict[str, Registered] = {}
M = TypeVar("M", bound=type[nn.Module])


def make_divisible(value: float, divisor: int) -> int:
    """Round ``value`` up to a multiple of ``divisor``."""
    return math.ceil(value / divisor) * divisor


def _first_arg_channels(row: LayerRow, scale: Scale) -> int:
    if not row.args or isinstance(row.args[0], bool) or not isinstance(row.args[0], int):
        raise row.fail(f"the first argument must be the number of output channels, got {list(row.args)}")
    return scale.channels(row.args[0])


def scaled(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in, out, ...): width is scaled, the row's number repeats the whole layer."""
    out = _first_arg_channels(row, scale)
    return LayerPlan((channels[0], out, *row.args[1:]), out, scale.repeats(row.number))


def scaled_inner(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in, out, repeats, ...): as ``scaled``, but the layer itself repeats its inside."""
    out = _first_arg_channels(row, scale)
    return LayerPlan((channels[0], out, scale.repeats(row.number), *row.args[1:]), out)


def same(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """Channels pass through; the arguments are the constructor's own (upsampling, pooling, padding)."""
    return LayerPlan(row.args, channels[0], scale.repeats(row.number))


def norm(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in): normalisation over the arriving channels."""
    return LayerPlan((channels[0], *row.args), channels[0], scale.repeats(row.number))


def concat(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """Channels of all sources add up."""
    return LayerPlan(row.args, sum(channels))


def head(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(nc, anchors, [in, in, ...]): the last layer; a bare number of anchors stands for placeholders per level."""
    nc, anchors, *rest = row.args
    if isinstance(anchors, int):  # the values are to be found by auto-anchor
        anchors = [list(range(2 * anchors)) for _ in channels]
    if len(anchors) != len(channels):
        raise row.fail(f"{len(anchors)} rows of anchors for {len(channels)} input layers; give one row per layer")
    return LayerPlan((nc, anchors, list(channels), *rest), sum(channels))


RULES: dict[str, Rule] = {rule.__name__: rule for rule in (scaled, scaled_inner, same, norm, concat, head)}


def register(rule: str, name: str | None = None) -> Callable[[M], M]:
    """Class decorator: make a layer usable in a model yaml under its class name (or ``name``).

    Args:
        rule: one of ``RULES``; says how the row's arguments turn into constructor arguments.
        name: the name in the yaml, when it is not the class name.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule '{rule}'{nearest(rule, RULES)}; known: {', '.join(RULES)}")

    def add(cls: M) -> M:
        LAYERS[name or cls.__name__] = Registered(cls, RULES[rule])
        return cls

    return add


# Layers of torch that yaml files name as nn.X.
for _name, _rule in {"Upsample": "same", "MaxPool2d": "same", "ZeroPad2d": "same", "BatchNorm2d": "norm"}.items():
    register(_rule, f"nn.{_name}")(getattr(nn, _name))


def look_up(row: LayerRow) -> Registered:
    """The registered layer of a row; the error names the nearest known one."""
    if row.module not in LAYERS:
        raise row.fail(
            f"unknown module '{row.module}'{nearest(row.module, LAYERS)}; known: {', '.join(sorted(LAYERS))}"
        )
    return LAYERS[row.module]
