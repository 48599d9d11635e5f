"""First run of a new model, on an empty image: gives the strides, and the row of the yaml that does not fit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.argument_orders import BLOCKS, by_name
from models.common import Dynamic_conv2d
from models.dynamic_convolution import DynamicConvolution
from models.registry import LayerRow
from models.user_modules import line_in_module
from utils.core.errors import InputError, first_line

LOG = logging.getLogger(__name__)
CHECK_SIZE = 256  # px; a multiple of every stride in use


@torch.no_grad()
def check_shapes(
    model: nn.Module, layers: nn.Sequential, rows: Sequence[LayerRow], channels: int
) -> tuple[list[Tensor], list[float]]:
    """Run a new model on one empty image of ``CHECK_SIZE``.

    Args:
        model: in any mode, which is kept.
        layers: of the model, one for each of ``rows``.
        channels: of the image.

    Returns:
        The raw predictions of the levels, and the stride of each layer in pixels (0: its output is no feature map).

    Raises:
        InputError: a layer fails or returns other channels than its rule says; the message names its row.
    """
    was_training = model.training
    model.eval()  # batch 1 in train mode would change the batch norm statistics
    reached: list[tuple[LayerRow, Any]] = []  # the layers entered so far and their inputs
    strides = [0.0] * len(rows)
    hooks = []
    for row, layer in zip(rows, layers):
        hooks.append(layer.register_forward_pre_hook(partial(_record_input, reached, row)))
        hooks.append(layer.register_forward_hook(partial(_check_output, row, strides)))
    try:
        _, predictions = model(torch.zeros(1, channels, CHECK_SIZE, CHECK_SIZE))
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        row, given = reached[-1]
        hint = _bare_dynamic_hint(rows[: row.index], layers)
        raise row.fail(
            f"cannot be run on {_shapes(given)} (channels x height x width, from {list(row.sources)}) at "
            f"{CHECK_SIZE} px: {line_in_module(error)}{first_line(error)}; check its 'from' and arguments"
            f"{f'; {hint}' if hint else ''}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    if hint := _bare_dynamic_hint(rows, layers):
        LOG.warning("%s: %s", rows[0].origin.partition(":")[0], hint)
    return predictions, strides


def level_problem(row: LayerRow, rows: Sequence[LayerRow], strides: Sequence[float]) -> tuple[str, bool]:
    """Check the levels of Detect; the stride is expected to double from level to level.

    Args:
        row: of Detect.
        strides: of each layer, in pixels.

    Returns:
        What is unusual, "" if nothing, and whether it makes the model useless.
    """
    levels = [s % row.index for s in row.sources]
    twice = [level for level, count in Counter(levels).items() if count > 1]
    if twice:
        return f"layer {twice[0]} is named twice; each level needs its own layer", True
    of_levels = [strides[level] for level in levels]
    listed = f"strides {', '.join(f'{stride:g}' for stride in of_levels)} of layers {', '.join(map(str, levels))}"
    for i, stride in enumerate(of_levels):
        if stride in of_levels[:i]:
            pair = (levels[of_levels.index(stride)], levels[i])
            hint = _suggest_level(pair, levels, rows, strides)
            return f"layers {pair[0]} and {pair[1]} both have stride {stride:g}{hint}", True
    ordered = sorted(of_levels)
    if of_levels not in (ordered, ordered[::-1]):
        return f"{listed} are not in order, but the rows of anchors are: list the layers by their stride", False
    if any(large != 2 * small for small, large in pairwise(ordered)):
        return f"{listed}: each is expected to be twice the one before; check the layer numbers", False
    return "", False


def _suggest_level(
    pair: tuple[int, int], levels: Sequence[int], rows: Sequence[LayerRow], strides: Sequence[float]
) -> str:
    """ "; is 21 meant?": the nearest layer of another stride, of the kind that the other levels are."""
    kinds = Counter(rows[level].module for level in levels)
    taken = {strides[level] for level in levels} | {0.0}
    free = [row for row in rows[:-1] if strides[row.index] not in taken]
    best = min(free, key=lambda r: (-kinds[r.module], min(abs(r.index - level) for level in pair)), default=None)
    return "" if best is None else f"; is {best.index} meant?"


def _record_input(reached: list[tuple[LayerRow, Any]], row: LayerRow, layer: nn.Module, inputs: tuple[Any]) -> None:
    """Forward pre-hook."""
    reached.append((row, inputs[0]))


def _check_output(row: LayerRow, strides: list[float], layer: nn.Module, inputs: tuple[Any], output: Any) -> None:
    """Forward hook: record the stride; later layers were built for the channels that the rule of the row promised."""
    if isinstance(output, Tensor) and output.ndim == 4:
        strides[row.index] = CHECK_SIZE / max(1, output.shape[2])
    if isinstance(output, Tensor) and output.shape[1:2] != (layer.promised,):
        raise row.fail(
            f"returned {_shapes(output)} (channels x height x width), its rule promised {layer.promised} channels; "
            "check its arguments; register a layer from --modules with a rule that fits"
        )


def _bare_dynamic_hint(rows: Sequence[LayerRow], layers: nn.Sequential) -> str:
    """A hint where the arguments of a bare dynamic convolution seem to be in another order; "" otherwise.

    Its padding is 0 unless given, so a kernel above 1 makes the feature map smaller, which is seldom meant; and in
    Dynamic_conv2d, as its authors have it, the ratio of the attention stands where others have the stride.
    """
    for row, layer in zip(reversed(rows), reversed(layers[: len(rows)])):
        one = layer[0] if isinstance(layer, nn.Sequential) else layer
        if not isinstance(one, DynamicConvolution) or type(one).__name__ not in BLOCKS:
            continue
        third = row.args[2] if len(row.args) > 2 else None
        ratio = type(one) is Dynamic_conv2d and isinstance(third, int) and third > 1
        padding = "has no padding" if one.kernel_size > 1 and one.padding == 0 else ""
        if one.padding > one.kernel_size * one.dilation:
            padding = f"has a padding of {one.padding} around a kernel of {one.kernel_size}"
        if ratio or padding:
            meant = by_name(row.module, row.args)
            order = "its third argument is the ratio of the attention, not the stride" if ratio else ""
            problem = ", and ".join(filter(None, (padding, order)))
            return (
                f"layer {row.index}, {row.module}, {problem}: {BLOCKS[type(one).__name__]} takes "
                f"[outputs, kernel, stride] and keeps the size at stride 1{f'; {meant}' if meant else ''}"
            )
    return ""


def _shapes(value: Any) -> str:
    """ "64x32x32", or several joined by "and"."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape[1:]))
    return " and ".join(map(_shapes, value)) if isinstance(value, (list, tuple)) else type(value).__name__
