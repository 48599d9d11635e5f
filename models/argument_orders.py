"""Rows of bare dynamic convolutions whose arguments are in the order of another program.

Layers of the same names have their arguments in other orders elsewhere: the stride where ``Dynamic_conv2d`` has the
ratio of its attention, the ratio or the number of kernels where it has the padding. Such a row mostly cannot be built.
What it seems to mean is then written by name, which is the same in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


BLOCKS = {"Dynamic_conv2d": "DynamicConv", "ODConv2d": "ODConv", "CondConv2d": "CondConv"}  # bare -> with all around
# What each argument can be, given outputs and kernel.
_POSSIBLE: dict[str, Callable[[Any, int, int], bool]] = {
    "stride": lambda value, outputs, kernel: _whole(value),
    "padding": lambda value, outputs, kernel: _whole(value, 0) and value < kernel,
    "dilation": lambda value, outputs, kernel: _whole(value),
    "groups": lambda value, outputs, kernel: _whole(value) and outputs % value == 0,
    "bias": lambda value, outputs, kernel: isinstance(value, bool),
    "ratio": lambda value, outputs, kernel: isinstance(value, float) and 0 < value < 1,
    "K": lambda value, outputs, kernel: _whole(value),
    "temperature": lambda value, outputs, kernel: _whole(value) or (isinstance(value, float) and value >= 1),
}
# Behind outputs and kernel; a row may stop anywhere.
ORDERS = (
    ("stride", "padding", "dilation", "groups", "bias", "K", "temperature"),
    ("stride", "padding", "dilation", "groups", "ratio", "K", "temperature"),
    ("stride", "padding", "dilation", "groups", "K", "temperature"),
    ("stride", "padding", "dilation", "ratio", "K", "temperature"),
    ("stride", "padding", "ratio", "K", "temperature"),
    ("stride", "padding", "bias", "K", "temperature"),
    ("stride", "padding", "K", "temperature"),
    ("stride", "ratio", "K", "temperature"),
    ("stride", "K", "temperature"),
    ("ratio", "K", "temperature"),
)  # fmt: skip
_USUAL = {"dilation": 1, "groups": 1, "bias": True}
_LARGEST_KERNEL = 15  # above it, what is read as the kernel is a number of channels


def by_name(module: str, args: Sequence[Any]) -> str:
    """What the arguments of a row seem to mean, "" where none of the orders fits.

    Args:
        module: name in the row, one of ``BLOCKS``.
        args: all arguments of the row, from the number of outputs on.

    Returns:
        Such as "in the order [outputs, kernel, stride, ratio, K] it would be [256, 3, {stride: 2, padding: 1, ...}]".
    """
    if len(args) > 1 and _whole(args[0]) and _whole(args[1], _LARGEST_KERNEL + 1):
        return (
            f"the second argument is the kernel, here {args[1]} x {args[1]}; the channels that arrive are not written"
        )
    if len(args) < 4 or not (_whole(args[0]) and _whole(args[1])):
        return ""
    outputs, kernel, *rest = args
    if rest[1] is None or isinstance(rest[1], (bool, str)):
        return f"{BLOCKS[module]} takes the arguments of Conv"
    for order in ORDERS:
        named = dict(zip(order, rest))
        if len(rest) <= len(order) and all(_POSSIBLE[name](value, outputs, kernel) for name, value in named.items()):
            break
    else:
        return ""
    listed = ", ".join(("outputs", "kernel", *named))
    if "padding" not in named and kernel > 1:
        named = {key: named[key] for key in order[:1]} | {"padding": kernel // 2} | named  # keeps the size at stride 1
    text = ", ".join(f"{name}: {value}" for name, value in named.items() if _USUAL.get(name) != value)
    return f"in the order [{listed}] it would be [{outputs}, {kernel}, {{{text}}}]"
