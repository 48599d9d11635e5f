"""The first run of a new model, on a blank picture: it shows the strides, and which row of the yaml does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.registry import LayerRow
from models.user_modules import place_in_module
from utils.errors import InputError, first_line

PROBE_SIZE = 256  # px; a multiple of every stride in use


@torch.no_grad()
def probe(model: nn.Module, layers: nn.Sequential, rows: Sequence[LayerRow], channels: int) -> list[Tensor]:
    """The raw maps of a blank picture of ``PROBE_SIZE``; what goes wrong is blamed on the row whose layer it was."""
    was_training = model.training
    model.eval()  # batch 1 in train mode would disturb the batch norm statistics
    reached: list[tuple[LayerRow, Any]] = []  # the layers entered so far and what they were given
    hooks = []
    for row, layer in zip(rows, layers):
        hooks.append(layer.register_forward_pre_hook(partial(_note_input, reached, row)))
        hooks.append(layer.register_forward_hook(partial(_check_width, row)))
    try:
        _, maps = model(torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE))
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        row, given = reached[-1]
        raise row.fail(
            f"cannot be run on {_shapes(given)} (channels x height x width, from {list(row.sources)}) at "
            f"{PROBE_SIZE} px: {place_in_module(error)}{first_line(error)}; check its 'from' and arguments"
            f"{_shrunk(rows[: row.index])}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return maps


def _note_input(reached: list[tuple[LayerRow, Any]], row: LayerRow, layer: nn.Module, inputs: tuple[Any]) -> None:
    """Forward pre-hook."""
    reached.append((row, inputs[0]))


def _check_width(row: LayerRow, layer: nn.Module, inputs: tuple[Any], output: Any) -> None:
    """Forward hook: later layers were built for the channels that the row's rule promised."""
    if isinstance(output, Tensor) and output.shape[1:2] != (layer.promised,):
        raise row.fail(
            f"returned {_shapes(output)} (channels x height x width), its rule promised {layer.promised} channels; "
            "check its arguments; a layer of your own: register it with a rule that fits"
        )


def _shrunk(rows: Sequence[LayerRow]) -> str:
    """A hint where a bare dynamic convolution made a map smaller, which is seldom meant."""
    for row in reversed(rows):
        if row.module == "Dynamic_conv2d" and len(row.args) in (2, 3) and row.args[1] != 1 and not row.options:
            return (
                f". Layer {row.index}, Dynamic_conv2d, has no padding, and its third argument is the ratio of the "
                "attention, not the stride: DynamicConv takes [outputs, kernel, stride]"
            )
    return ""


def _shapes(value: Any) -> str:
    """ "64x32x32", or several joined by "and"."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape[1:]))
    return " and ".join(map(_shapes, value)) if isinstance(value, (list, tuple)) else type(value).__name__
