"""The ``act:`` key of a model yaml: another activation in place of SiLU, everywhere in the model."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules import activation as torch_activations

from utils.core.errors import InputError, suggestion

KNOWN_ACTIVATIONS = (*(name for name in torch_activations.__all__ if name != "MultiheadAttention"), "Identity")


def read_activation(spec: Any, source: str) -> Callable[[], nn.Module]:
    """Read ``nn.LeakyReLU(0.1)``, ``LeakyReLU(0.1)``, ``ReLU`` ...; the text is not evaluated.

    Args:
        spec: value of the key.
        source: name of the yaml, for messages.

    Returns:
        A function that makes such a module.

    Raises:
        InputError: not the name of an activation of torch.nn, or arguments that are not plain values or do not fit.
    """
    problem = f"{source}: act: {spec!r}"
    try:
        tree = ast.parse(str(spec), mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(func=tree, args=[], keywords=[])
        name = ast.unparse(call.func).removeprefix("torch.").removeprefix("nn.")
        args = [ast.literal_eval(arg) for arg in call.args]
        options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{problem} cannot be read; write it like nn.LeakyReLU(0.1)") from error
    if name not in KNOWN_ACTIVATIONS:
        raise InputError(f"{problem}: '{name}' is no activation of torch.nn{suggestion(name, KNOWN_ACTIVATIONS)}")

    def make() -> nn.Module:
        module: nn.Module = getattr(nn, name)(*args, **options)
        return module

    try:
        make()
    except TypeError as error:
        raise InputError(f"{problem}: {error}") from error
    return make


def replace_activations(model: nn.Module, make: Callable[[], nn.Module]) -> None:
    """Replace the ``act`` of every layer that has SiLU there."""
    for module in model.modules():
        if isinstance(getattr(module, "act", None), nn.SiLU):
            module.act = make()
