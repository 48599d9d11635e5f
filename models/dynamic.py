"""What acts on all dynamic layers of a model at once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from models.common import attention2d


def attention_layers(model: nn.Module) -> Iterator[tuple[str, attention2d]]:
    """Name and module of every kernel attention in ``model``."""
    for name, module in model.named_modules():
        if isinstance(module, attention2d):
            yield name, module


def set_temperature(model: nn.Module, temperature: float) -> int:
    """Set the softmax temperature of every dynamic layer; returns how many there are."""
    count = 0
    for _, attention in attention_layers(model):
        attention.set_temperature(temperature)
        count += 1
    return count


def get_temperature(model: nn.Module) -> float | None:
    """The temperature of the model's dynamic layers, or None when it has none.

    Raises:
        RuntimeError: layers disagree, which no part of this program does.
    """
    found = {float(attention.temperature) for _, attention in attention_layers(model)}
    if len(found) > 1:
        raise RuntimeError(f"dynamic layers have different temperatures: {sorted(found)}")
    return found.pop() if found else None
