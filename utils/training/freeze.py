"""Keeping layers exactly as they are while the rest trains."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from models.yolo import Model
from utils.core.errors import InputError

_RANGE = re.compile(r"(\d+)-(\d+)")


def layers_to_freeze(freeze: Sequence[int | str]) -> list[int]:
    """Layer numbers. One number N alone: the first N layers; several: those layers; "a-b": a to b, both included.

    Names are left out.
    """
    if len(freeze) == 1 and isinstance(freeze[0], int):
        return list(range(freeze[0]))
    numbers: list[int] = []
    for word in freeze:
        if isinstance(word, int):
            numbers.append(word)
        elif found := _RANGE.fullmatch(word):
            low, high = int(found[1]), int(found[2])
            if low > high:
                raise InputError(f"--freeze {word}: a range goes from the lower to the higher number")
            numbers += range(low, high + 1)
    return numbers


def _named(model: Model, name: str) -> list[str]:
    """Parameters of a module (``model.24``, ``model.2.cv1``), else those with ``name`` anywhere in theirs."""
    names = [key for key, _ in model.named_parameters()]
    return [key for key in names if f"{key}.".startswith(f"{name}.")] or [key for key in names if name in key]


class FrozenLayers:
    """Parameters that get no gradient, and batch norm statistics that stand still with them.

    Args:
        model: its layers ``model.0``, ``model.1``, ... are numbered as in the yaml.
        freeze: numbers and ranges as for :func:`layers_to_freeze`; names of modules, or parts of parameter names.

    Raises:
        InputError: a number beyond the last layer, a name that nothing has, or nothing left to train.
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
                found = _named(model, word)
                if not found:
                    raise InputError(
                        f"--freeze {word}: no module has this name and no parameter has it in its own; expected a "
                        "layer number, a range such as 0-9, a module such as model.24, or a part of a name such as bn"
                    )
                chosen.update(found)
        for name, parameter in model.named_parameters():
            if name in chosen:
                parameter.requires_grad_(False)
        if chosen and not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"--freeze {' '.join(map(str, freeze))}: nothing is left to train")
        self._still = _still_modules(model)

    def set_evaluation_mode(self) -> None:
        """Set frozen modules to evaluation mode, so that their statistics stay; call it after ``model.train()``."""
        for module in self._still:
            module.training = False


def _layer_of(name: str) -> int:
    """Number of the layer that ``model.<number>. ...`` belongs to."""
    return int(name.split(".")[1])


def _still_modules(model: Model) -> list[nn.Module]:
    """Modules that are frozen as a whole with all that is in them; not the head, which must give maps in training."""
    still: dict[nn.Module, None] = {}
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            still.update(dict.fromkeys(module.modules()))
    return [module for module in still if module is not model.head]
