"""Batch norm statistics of a model that starts from scratch: how much of a run they remember."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_PART = 4  # statistics remember about the last quarter of the batches so far


class NormWarmUp:
    """Lets the running mean and variance of a young norm follow faster than its momentum would.

    A norm begins with mean 0 and variance 1, and with v6.1's momentum of 0.03 a fifth of that is still in it after 50
    batches, in every layer anew: on a set of a few pictures the losses fall, and the averaged model, which is scored
    with these statistics, finds nothing. Here the momentum is 4 / (4 + batches seen) until that comes down to its own
    value, after 130 batches. Training itself normalises by the batch, so its losses do not change.

    Args:
        model: in training. A norm that has seen batches, in the run that is resumed or in that of ``--weights``, goes
            on from its own count.
        enabled: False leaves all as in v6.1.
    """

    def __init__(self, model: nn.Module, enabled: bool = True) -> None:
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if enabled else []
        self._young = {norm: norm.momentum for norm in norms if norm.momentum is not None and norm.track_running_stats}
        self._begun = False

    def step(self) -> None:
        """Call before each batch; costs nothing once all norms are old enough."""
        if not self._begun:
            self._begun = True
            self._young = {norm: own for norm, own in self._young.items() if _count(norm) or not _has_learned(norm)}
        if not self._young:
            return
        counts = torch.stack([norm.num_batches_tracked for norm in self._young]).tolist()  # one look at a GPU
        for (norm, own), count in zip(list(self._young.items()), counts):
            norm.momentum = max(own, _PART / (_PART + count))
            if norm.momentum == own:
                del self._young[norm]


def _count(norm: _BatchNorm) -> int:
    return int(norm.num_batches_tracked)


def _has_learned(norm: _BatchNorm) -> bool:
    """Whether the statistics are others than those of a new norm, as in files that do not count batches."""
    assert norm.running_mean is not None and norm.running_var is not None
    return bool(norm.running_mean.any()) or bool((norm.running_var != 1).any())
