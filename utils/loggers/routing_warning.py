"""A warning early in a run about dynamic layers whose routing does not develop, with the cure."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.routing import RoutingRecorder, RoutingStats, routing_stats
from utils.core.callbacks import BatchEnd, Callback
from utils.core.image import to_model_input

LOG = logging.getLogger(__name__)
SHARE, LEAST = 0.05, 50  # the routing is checked after this share of the run's batches, but not before so many
UNVARIED_CURE = (
    "for layers inflated from static weights kernel_spread: 0; temperature_start: 1 or temperature_span: 0.1, and "
    "kernel_lr: K under SGD"
)
ONE_KERNEL_CURE = "{norm: true} in the rows of the model yaml, attention_lr: 0.1, or temperature_span: 0.1"


def at_temperature(weights: Tensor, temperature: float, other: float) -> Tensor:
    """Return softmax weights [n, K] of one temperature as they are at another, from the same logits."""
    return torch.softmax(weights.clamp_min(1e-30).log() * (temperature / other), dim=1)


class RoutingWarning(Callback):
    """Checks the kernel weights of the EMA model once, on a training batch, and warns when they are not used.

    They are converted to the last temperature: while T is high all are nearly uniform by design.

    Args:
        model: EMA model, in evaluation mode.
        iterations: batches of the whole run; a run that is too short is not checked.
        temperature_end: last temperature of the run.
    """

    def __init__(self, model: nn.Module, iterations: int, temperature_end: float = 1.0) -> None:
        self._model, self._end = model, temperature_end
        self._when = max(LEAST, round(SHARE * iterations))

    def on_train_batch_end(self, event: BatchEnd) -> None:
        if event.iteration + 1 != self._when or len(event.batch.images) < 2:
            return
        device = next(self._model.parameters()).device
        with torch.no_grad(), RoutingRecorder(self._model) as recorder:
            self._model(to_model_input(event.batch.images, device))
        seen = [self._as_at_the_end(layer, recorder.weights(layer.name)) for layer in recorder.stats()]
        alike = [layer.name for layer in seen if layer.unvaried]
        single = [layer.name for layer in seen if layer.collapsed]
        for names, what, cure in (
            (alike, "mix the kernels alike for every image", UNVARIED_CURE),
            (single, "use one kernel for every image", ONE_KERNEL_CURE),
        ):
            if len(names) > len(seen) / 2:
                LOG.warning(
                    f"after {self._when} batches {len(names)} of {len(seen)} dynamic layers {what} ({_short(names)}); "
                    f"what helps, in the --hyp file or as named: {cure}"
                )

    def _as_at_the_end(self, layer: RoutingStats, weights: Tensor) -> RoutingStats:
        if layer.temperature is None:
            return layer
        return routing_stats(layer.name, at_temperature(weights, layer.temperature, self._end))


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
