"""Keeping layers exactly as they are while the rest trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import nn

from models.yolo import Model
from utils.errors import InputError

LOG = logging.getLogger(__name__)


def layers_to_freeze(freeze: Sequence[int]) -> list[int]:
    """One number N: the first N layers; several numbers: those layers."""
    return list(range(freeze[0])) if len(freeze) == 1 else list(freeze)


class FrozenLayers:
    """Layers whose parameters get no gradient and whose batch norm statistics stand still.

    Args:
        model: its layers ``model.0``, ``model.1``, ... are numbered as in the yaml.
        freeze: as for :func:`layers_to_freeze`.

    Raises:
        InputError: a number beyond the last layer.
    """

    def __init__(self, model: Model, freeze: Sequence[int]) -> None:
        numbers, last = layers_to_freeze(freeze), len(model.model) - 1
        for number in numbers:
            if number > last:
                given = " ".join(map(str, freeze))
                raise InputError(f"--freeze {given}: there is no layer {number}; the model's layers are 0 to {last}")
        self._layers: list[nn.Module] = [model.model[number] for number in numbers]
        for layer in self._layers:
            layer.requires_grad_(False)
        if numbers:
            LOG.info("frozen layers: %s", ", ".join(map(str, numbers)))

    def hold(self) -> None:
        """Call after ``model.train()``: frozen layers run in evaluation mode, so their statistics do not move."""
        for layer in self._layers:
            layer.eval()
