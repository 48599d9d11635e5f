"""Batch norm in training: statistics that adapt faster at the start, and norms over the images of all ranks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.core.dist import Ranks

LOG = logging.getLogger(__name__)
_PART = 4  # statistics remember about the last quarter of the batches so far


class NormWarmUp:
    """Adapts the running mean and variance of a new norm faster than its momentum would.

    A norm starts with mean 0 and variance 1, and with v6.1's momentum of 0.03 a fifth of that remains after 50
    batches, in every layer: on a set of a few images the losses fall, while the EMA model, which is evaluated with
    these statistics, detects nothing. Here the momentum is 4 / (4 + batches so far) until that falls to the momentum of
    the norm, after 130 batches. Training itself normalises by the batch, so its losses do not change.

    Args:
        model: in training. A norm that has counted batches, in the run that is resumed or in that of ``--weights``,
            continues from its count.
        enabled: False: all as in v6.1.
        shared: other ranks train the model too; when the forward pass begins, all get the statistics of rank 0.
    """

    def __init__(self, model: nn.Module, enabled: bool = True, shared: bool = False) -> None:
        self._model, self._shared = model, shared
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if enabled else []
        self._new = [norm for norm in norms if norm.momentum and norm.track_running_stats]
        self._started = False

    @contextlib.contextmanager
    def adapting(self) -> Iterator[None]:
        """Open around forward and backward pass of a batch; costs nothing once all norms have seen enough batches.

        The momenta themselves do not change, because a compiled model would be compiled again for each.
        """
        if not self._started:
            self._started = True
            self._new = [norm for norm in self._new if int(_count(norm)) or not _has_learned(norm)]
        if not self._new:
            yield
            return
        counts = torch.stack([_count(norm) for norm in self._new]).tolist()  # one transfer from a GPU
        momenta = [_PART / (_PART + count) for count in counts]
        pairs = [(norm, momentum) for norm, momentum in zip(self._new, momenta) if momentum > (norm.momentum or 0.0)]
        self._new = [norm for norm, _ in pairs]
        before: list[Tensor] = []

        def record(*_: object) -> None:
            if not before:
                before.extend(stats.clone() for norm, _ in pairs for stats in _statistics(norm))

        if self._shared:
            hook = self._model.register_forward_pre_hook(record)  # of the model itself: its wrapper spreads them first
            try:
                yield
            finally:
                hook.remove()
        else:
            record()
            yield
        after = [stats for norm, _ in pairs for stats in _statistics(norm)]
        shares = [momentum / (norm.momentum or 1.0) for norm, momentum in pairs for _ in range(2)]
        with torch.no_grad():
            for old, new, share in zip(before, after, shares):
                new.copy_(torch.lerp(old, new, share))  # the same step, as long as with the larger momentum


def _count(norm: _BatchNorm) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def _has_learned(norm: _BatchNorm) -> bool:
    """Whether the statistics differ from those of a new norm, as in files that do not count batches."""
    mean, var = _statistics(norm)
    return bool(mean.any()) or bool((var != 1).any())


# Over all ranks -------------------------------------------------------------------------------------------------------


class _SumOverRanks(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, since the loss of every rank depends on the summand of every rank."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class JointBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the images of all ranks on any device; torch's SyncBatchNorm supports GPUs only.

    Attributes:
        empty_batch: the next batch is the empty image of a rank for which none was left, and does not count.
    """

    empty_batch = False

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> JointBatchNorm2d:
        """Make a joint norm with the parameters and buffers of ``norm``."""
        joint = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        joint.weight, joint.bias = norm.weight, norm.bias
        joint.running_mean, joint.running_var = norm.running_mean, norm.running_var
        joint.num_batches_tracked = norm.num_batches_tracked
        return joint.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, H, W] of this rank, in training with mean and variance over all ranks."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        x = input.float()
        counted = len(x) * (not self.empty_batch)
        count = x.new_tensor([x[:counted].numel() / x.shape[1]])
        sums = _SumOverRanks.apply(torch.cat([x[:counted].sum((0, 2, 3)), count]))
        mean, n = sums[:-1] / sums[-1], sums[-1]
        centred = x - mean[:, None, None]
        # A second message, because the difference of two large sums of squares would lose small variances.
        var = _SumOverRanks.apply(centred[:counted].square().sum((0, 2, 3))) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1).clamp(min=1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronize_norms(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Replace every batch norm of ``model`` by one over the images of all ranks (``--sync-bn``)."""
    if ranks.size == 1:
        LOG.warning("--sync-bn has no effect: this process has no others (torchrun starts several)")
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # replaces children in place
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, JointBatchNorm2d.of(child))
