"""Batch norm statistics of a model that starts from scratch: how much of a run they remember."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PART = 4  # statistics remember about the last quarter of the batches so far


class NormWarmUp:
    """Lets the running mean and variance of a young norm follow faster than its momentum would.

    A norm begins with mean 0 and variance 1, and with v6.1's momentum of 0.03 a fifth of that is still in it after 50
    batches, in every layer anew: on a set of a few images the losses fall, and the averaged model, which is scored
    with these statistics, finds nothing. Here the momentum is 4 / (4 + batches seen) until that comes down to its own
    value, after 130 batches. Training itself normalises by the batch, so its losses do not change.

    Args:
        model: in training. A norm that has seen batches, in the run that is resumed or in that of ``--weights``, goes
            on from its own count.
        enabled: False leaves all as in v6.1.
        shared: other processes train the model too: as the forward pass begins, all get the statistics of rank 0.
    """

    def __init__(self, model: nn.Module, enabled: bool = True, shared: bool = False) -> None:
        self._model, self._shared = model, shared
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if enabled else []
        self._young = [norm for norm in norms if norm.momentum and norm.track_running_stats]
        self._begun = False

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Around forward and backward pass of a batch; costs nothing once all norms are old enough.

        The momenta themselves stay as they are, because a compiled model would be compiled anew for each.
        """
        if not self._begun:
            self._begun = True
            self._young = [norm for norm in self._young if int(_count(norm)) or not _has_learned(norm)]
        if not self._young:
            yield
            return
        counts = torch.stack([_count(norm) for norm in self._young]).tolist()  # one look at a GPU
        wanted = [_PART / (_PART + count) for count in counts]
        pairs = [(norm, w) for norm, w in zip(self._young, wanted) if w > (norm.momentum or 0.0)]
        self._young = [norm for norm, _ in pairs]
        before: list[Tensor] = []

        def remember(*_: object) -> None:
            if not before:
                before.extend(stats.clone() for norm, _ in pairs for stats in _statistics(norm))

        if self._shared:
            hook = self._model.register_forward_pre_hook(remember)  # of the model in the wrapper, which spreads them
            try:
                yield
            finally:
                hook.remove()
        else:
            remember()
            yield
        after = [stats for norm, _ in pairs for stats in _statistics(norm)]
        shares = [w / (norm.momentum or 1.0) for norm, w in pairs for _ in range(2)]
        with torch.no_grad():
            for old, new, share in zip(before, after, shares):
                new.copy_(torch.lerp(old, new, share))  # the step it made, as if with the other momentum


def _count(norm: _BatchNorm) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def _has_learned(norm: _BatchNorm) -> bool:
    """Whether the statistics are others than those of a new norm, as in files that do not count batches."""
    mean, var = _statistics(norm)
    return bool(mean.any()) or bool((var != 1).any())
