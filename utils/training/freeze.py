"""Freezing layers: they stay exactly as they are while the others are trained."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from models.yolo import Model
from utils.core.errors import InputError

_RANGE = re.compile(r"(\d+)-(\d+)")


def layers_to_freeze(freeze: Sequence[int | str]) -> list[int]:
    """Return layer numbers: the first N for a single number N, else the numbers given; ``a-b`` includes both.

    Names are ignored.
    """
    if len(freeze) == 1 and isinstance(freeze[0], int):
        return list(range(freeze[0]))
    numbers: list[int] = []
    for word in freeze:
        if isinstance(word, int):
            numbers.append(word)
        elif match := _RANGE.fullmatch(word):
            low, high = int(match[1]), int(match[2])
            if low > high:
                raise InputError(f"--freeze {word}: a range is written from the lower to the higher number")
            numbers += range(low, high + 1)
    return numbers


def _parameters_named(model: Model, name: str) -> list[str]:
    """Return the parameters of a module (``model.24``, ``model.2.cv1``), else those with ``name`` in their names."""
    names = [key for key, _ in model.named_parameters()]
    return [key for key in names if f"{key}.".startswith(f"{name}.")] or [key for key in names if name in key]


class FrozenLayers:
    """Parameters without gradient, and modules whose batch norm statistics do not change.

    Args:
        model: its layers ``model.0``, ``model.1``, ... are numbered as in the yaml.
        freeze: numbers and ranges as for :func:`layers_to_freeze`; names of modules, or parts of parameter names.

    Raises:
        InputError: a number beyond the last layer, an unknown name, or nothing left to train.
    """

    def __init__(self, model: Model, freeze: Sequence[int | str]) -> None:
        numbers, last = layers_to_freeze(freeze), len(model.model) - 1
        for number in numbers:
            if number > last:
                given = " ".join(map(str, freeze))
                raise InputError(f"--freeze {given}: there is no layer {number}; the model's layers are 0 to {last}")
        chosen = {name for number in numbers for name, _ in model.named_parameters() if _layer_of(name) == number}
        for word in freeze:
            if isinstance(word, str) and not _RANGE.fullmatch(word):
                names = _parameters_named(model, word)
                if not names:
                    raise InputError(
                        f"--freeze {word}: no module has this name, and no parameter has it in its name; expected a "
                        "layer number, a range such as 0-9, a module such as model.24, or a part of a name such as bn"
                    )
                chosen.update(names)
        for name, parameter in model.named_parameters():
            if name in chosen:
                parameter.requires_grad_(False)
        if chosen and not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"--freeze {' '.join(map(str, freeze))}: nothing is left to train")
        self._modules = _frozen_modules(model)

    def set_evaluation_mode(self) -> None:
        """Set frozen modules to evaluation mode, so that their statistics stay; call it after ``model.train()``."""
        for module in self._modules:
            module.training = False


def _layer_of(name: str) -> int:
    """Return the number of the layer to which the parameter ``model.<number>. ...`` belongs."""
    return int(name.split(".")[1])


def _frozen_modules(model: Model) -> list[nn.Module]:
    """Return modules without any trained parameter; not the head, whose training mode gives raw predictions."""
    frozen: dict[nn.Module, None] = {}
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            frozen.update(dict.fromkeys(module.modules()))
    return [module for module in frozen if module is not model.head]
