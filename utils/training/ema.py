"""The EMA model: an exponential moving average of the weights, which is evaluated and saved."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

# Set by the schedule (see ``models.dynamic.set_temperature``): an average would lag behind.
_NOT_AVERAGED = frozenset({"temperature"})


class ModelEMA:
    """Exponential moving average of a model's floating-point state, parameters and buffers alike.

    After n updates the decay is ``decay * (1 - exp(-n / tau))``, so that early weights soon lose their influence.
    Integer state is copied; the temperature of dynamic layers is neither averaged nor copied.

    Args:
        model: the model in training, not wrapped for distributed training.
        decay: limit of the decay.
        tau: updates until the decay is 63 % of its limit.
        updates: number of earlier updates, of a resumed run.

    Attributes:
        model: the EMA model, in evaluation mode and without gradients.
        updates: number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.limit = decay
        self.tau = tau
        self.updates = updates

    def decay_at(self, updates: int) -> float:
        """Return the share of the average that update number ``updates`` keeps."""
        return -self.limit * math.expm1(-updates / self.tau)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average the state of ``model``, which must have the keys, types and device of the EMA model.

        Equal values stay exactly equal, so the average of frozen layers does not change.
        """
        self.updates += 1
        averages: list[Tensor] = []
        news: list[Tensor] = []
        state = model.state_dict()
        for key, average in self.model.state_dict().items():
            if key.rpartition(".")[2] in _NOT_AVERAGED:
                continue
            if average.is_floating_point():
                averages.append(average)
                news.append(state[key])
            else:
                average.copy_(state[key])
        # One call for all tensors: on a GPU a launch for each of some hundreds costs more than the arithmetic.
        torch._foreach_lerp_(averages, news, 1 - self.decay_at(self.updates))
