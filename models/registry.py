"""How a row of a model yaml becomes a layer.

A layer class is registered where it is defined, with the rule by which its rows are read::

    @register("scaled")
    class MyConv(nn.Module): ...

There is no other list of layers. A rule receives the row, the channels that each source layer returns and the width and
depth scale of the model, and returns a :class:`LayerPlan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from utils.core.errors import InputError, suggestion


@dataclass(frozen=True)
class LayerRow:
    """One row ``[from, number, module, args]`` of a model yaml, with tokens and literals already resolved."""

    index: int
    sources: tuple[int, ...]
    number: int
    module: str
    args: tuple[Any, ...]
    origin: str  # "yolov5n.yaml: head row 3", for messages
    options: Mapping[str, Any] = field(default_factory=dict)  # a mapping at the end of the arguments: by keyword
    listed: bool = False  # 'from' is a list: the layer is called with a list of feature maps

    def fail(self, problem: str) -> InputError:
        """The error of a problem with this row, to be raised."""
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
    """What to build of a row.

    Attributes:
        args: of the constructor.
        out_channels: of the output.
        copies: number of layers in sequence.
        later_args: of the second copy and the following, whose input is the output of the one before.
    """

    args: tuple[Any, ...]
    out_channels: int
    copies: int = 1
    later_args: tuple[Any, ...] | None = None


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


def _only(row: LayerRow, channels: Sequence[int]) -> int:
    """The channels of the only source of a layer."""
    if row.listed:
        raise row.fail(
            f"takes one input, not a list of {len(channels)}; write 'from' as a number, or Concat them first"
        )
    return channels[0]


def _first_arg_channels(row: LayerRow, scale: Scale) -> int:
    if not row.args or isinstance(row.args[0], bool) or not isinstance(row.args[0], int):
        raise row.fail(f"the first argument must be the number of output channels, got {list(row.args)}")
    return scale.channels(row.args[0])


def scaled(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in, out, ...): width is scaled, the number of the row repeats the whole layer."""
    out, rest = _first_arg_channels(row, scale), row.args[1:]
    return LayerPlan((_only(row, channels), out, *rest), out, scale.repeats(row.number), (out, out, *rest))


def scaled_inner(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in, out, repeats, ...): as ``scaled``, but the layer itself repeats its inner blocks."""
    out = _first_arg_channels(row, scale)
    return LayerPlan((_only(row, channels), out, scale.repeats(row.number), *row.args[1:]), out)


def same(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """Channels stay; the arguments are those of the constructor (upsampling, pooling, padding)."""
    return LayerPlan(row.args, _only(row, channels), scale.repeats(row.number))


def norm(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in, ...): channels stay, and the constructor takes their number first (normalisation, attention)."""
    return LayerPlan((_only(row, channels), *row.args), _only(row, channels), scale.repeats(row.number))


def as_written(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(in, out, ...): convolutions of torch, whose arguments are not scaled, as in v6.1."""
    arriving = _only(row, channels)
    if len(row.args) < 2 or row.args[0] != arriving or not isinstance(row.args[1], int):
        raise row.fail(
            f"takes [{arriving}, channels out, kernel, ...], since {arriving} channels arrive and the arguments of "
            f"nn layers are not scaled; got {list(row.args)}"
        )
    return LayerPlan(row.args, row.args[1])


def concat(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """A list of feature maps, whose channels are added up."""
    return LayerPlan(row.args, sum(channels))


def total(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(sources, ...): a list of feature maps with the same channels, whose values are added up."""
    if len(set(channels)) != 1:
        raise row.fail(f"feature maps to be added need the same number of channels, these have {list(channels)}")
    return LayerPlan((len(channels), *row.args), channels[0])


def _gain_squared(row: LayerRow) -> int:
    gain = row.args[0] if row.args else 2
    if not isinstance(gain, int) or gain < 1:
        raise row.fail(f"the argument must be a whole number of at least 1, got {gain!r}")
    return gain * gain


def contract(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(gain): squares of gain x gain pixels become channels."""
    return LayerPlan(row.args, _only(row, channels) * _gain_squared(row))


def expand(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(gain): channels become squares of gain x gain pixels."""
    arriving, square = _only(row, channels), _gain_squared(row)
    out, rest = divmod(arriving, square)
    if rest:
        raise row.fail(f"{arriving} channels cannot be spread over squares of {square} pixels")
    return LayerPlan(row.args, out)


def head(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    """(nc, anchors, [in, in, ...]): the last layer; a number of anchors stands for placeholders per level."""
    nc, anchors, *rest = row.args
    for word, value, kinds in (("nc", nc, int), ("anchors", anchors, (int, list, tuple))):
        if not isinstance(value, kinds):
            raise row.fail(f"the arguments are [nc, anchors]; '{value}' is not {word}{suggestion(str(value), [word])}")
    if isinstance(anchors, int):  # auto-anchor computes the values
        anchors = [list(range(2 * anchors)) for _ in channels]
    if len(anchors) != len(channels):
        raise row.fail(f"{len(anchors)} rows of anchors for {len(channels)} input layers; give one row per layer")
    return LayerPlan((nc, anchors, list(channels), *rest), sum(channels))


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (scaled, scaled_inner, same, norm, as_written, concat, total, contract, expand, head)
}


def register(rule: str | Rule, name: str | None = None) -> Callable[[M], M]:
    """Class decorator: make a layer usable in a model yaml under its class name (or ``name``).

    Args:
        rule: one of ``RULES``, or a function of the same kind; says how the row's arguments, the arriving channels
            and the scale turn into constructor arguments.
        name: the name in the yaml, when it is not the class name.
    """
    if isinstance(rule, str) and rule not in RULES:
        raise ValueError(f"unknown rule '{rule}'{suggestion(rule, RULES)}; known: {', '.join(RULES)}")
    chosen = RULES[rule] if isinstance(rule, str) else rule

    def add(cls: M) -> M:
        LAYERS[name or cls.__name__] = Registered(cls, chosen)
        return cls

    return add


# Layers of torch that yaml files name as nn.X. v6.1 evaluates any name; these are the ones that make sense in a row.
_OF_TORCH = {
    "same": (
        "Upsample UpsamplingBilinear2d UpsamplingNearest2d MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d "
        "ZeroPad2d ReflectionPad2d ReplicationPad2d Identity Dropout Dropout2d "
        "ReLU ReLU6 LeakyReLU SiLU Hardswish Mish GELU ELU Sigmoid Tanh"
    ),
    "norm": "BatchNorm2d InstanceNorm2d",
    "as_written": "Conv2d ConvTranspose2d",
}
for _rule, _names in _OF_TORCH.items():
    for _name in _names.split():
        register(_rule, f"nn.{_name}")(getattr(nn, _name))


def look_up(row: LayerRow) -> Registered:
    """The registered layer of a row.

    Raises:
        InputError: there is none of that name; the message suggests a similar one.
    """
    if row.module not in LAYERS:
        of_torch = row.module.startswith("nn.")
        known = sorted(name for name in LAYERS if name.startswith("nn.") == of_torch)
        raise row.fail(
            f"unknown module '{row.module}'{suggestion(row.module, LAYERS)}; known: {', '.join(known)}; "
            "your own layers: --modules my_layers.py"
        )
    return LAYERS[row.module]
