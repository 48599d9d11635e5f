"""A model trained by several processes: its device, its wrapper, and batch norm over all their images."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from models.yolo import Model
from utils.config.options import TrainOptions
from utils.config.train_options import AUTO
from utils.core.dist import Ranks
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
# Where files lie and what a machine has; everything else must be the same for all processes.
OF_MACHINE = frozenset({"data", "weights", "device", "workers", "cache", "cache_dir", "download", "allow_scripts"})


def device_of_rank(device: str, ranks: Ranks) -> str:
    """The one device of ``--device`` that this process is to use.

    Raises:
        InputError: several for a single process, or fewer than this machine has processes.
    """
    wanted = device.strip().lower().replace("cuda:", "")
    numbers = [word for word in wanted.split(",") if word]
    if ranks.size == 1:
        if len(numbers) > 1:
            raise InputError(
                f"--device {device}: each GPU needs a process of its own: torchrun --nproc_per_node={len(numbers)} "
                f"train.py --device {device} ...; or name one GPU"
            )
        return device
    if wanted == "cpu" or not (wanted or torch.cuda.is_available()):
        return "cpu"
    numbers = numbers or [str(number) for number in range(torch.cuda.device_count())]
    if len(numbers) < ranks.local_size:
        raise InputError(
            f"torchrun started {ranks.local_size} processes here for {len(numbers)} GPUs ({', '.join(numbers)}): use "
            f"--nproc_per_node={len(numbers)}, or --device cpu"
        )
    return numbers[ranks.local_rank]


def own_machine(options: TrainOptions, given: TrainOptions) -> TrainOptions:
    """The options of the run, which are those of rank 0, with what this rank's command line says of its machine."""
    return replace(options, **{name: getattr(given, name) for name in OF_MACHINE & given.given})


def check_alone(options: TrainOptions, ranks: Ranks, resumed: bool = False) -> TrainOptions:
    """The options, without --compile where a run that had it is resumed by several processes.

    Raises:
        InputError: an option that only a run of one process can have.
    """
    if options.compile and resumed and ranks.size > 1:
        LOG.warning("--compile of this run is left out: it is for one process, and %d go on", ranks.size)
        options = replace(options, compile=False)
    for flag, given in (("--batch-size -1", options.batch_size == AUTO), ("--compile", options.compile)):
        if given and ranks.size > 1:
            raise InputError(f"{flag} is for a run of one process, and this one has {ranks.size}; leave it out")
    return options


def check_batch_size(batch_size: int, quad: bool, ranks: Ranks, resumed: bool = False) -> None:
    """Raise InputError: the total ``--batch-size`` cannot be divided among the processes."""
    unit, four = ranks.size * (4 if quad else 1), 4 if quad else 1
    if ranks.size == 1 or batch_size % unit == 0:
        return
    of_quad = ", with --quad in fours" if quad else ""
    cure = f"use a multiple of {unit}, for example {max(1, round(batch_size / unit)) * unit}"
    if resumed:  # which keeps its batch size
        numbers = [n for n in range(1, batch_size + 1) if batch_size % (n * four) == 0]
        cure = f"go on with {' or '.join(map(str, numbers or [1]))} of them: a resumed run keeps its batch size"
    raise InputError(
        f"--batch-size {batch_size} is the total of {ranks.size} processes and cannot be divided among them"
        f"{of_quad}; {cure}"
    )


def distribute(model: Model, device: torch.device, ranks: Ranks) -> nn.Module:
    """``model`` as the training calls it: backward gives every rank the mean of all their gradients."""
    if ranks.size == 1:
        return model
    idle = without_gradient(model)
    if idle:
        LOG.warning("no gradient reaches %s: trained as if frozen", ", ".join(idle))
    gpus = [device.index] if device.type == "cuda" else None
    # To look for parameters without gradient costs time in every step, so only where there are some.
    return DistributedDataParallel(model, device_ids=gpus, find_unused_parameters=bool(idle))


def without_gradient(model: Model) -> list[str]:
    """Trainable parameters that a training step would leave without a gradient, by name."""
    twin = copy.deepcopy(model).train()
    first = next(twin.parameters())
    side = 2 * int(twin.stride.max())
    with torch.random.fork_rng(devices=[]):
        maps = twin(torch.zeros(2, twin.yaml["ch"], side, side, device=first.device, dtype=first.dtype))
        torch.stack([level.sum() for level in maps]).sum().backward()
    return [name for name, p in twin.named_parameters() if p.requires_grad and p.grad is None]


# Batch norm -----------------------------------------------------------------------------------------------------------


class _SumOverRanks(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, since every rank's loss depends on every rank's summand."""

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
    """Batch norm over the images of all ranks on any device; torch's SyncBatchNorm knows GPUs only.

    Attributes:
        blank: what comes next is not an image but what a rank is given for which none was left: it does not count.
    """

    blank = False

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] of this rank, normalised with mean and variance of all ranks in training."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        x = input.float()
        counted = len(x) * (not self.blank)
        count = x.new_tensor([x[:counted].numel() / x.shape[1]])
        sums = _SumOverRanks.apply(torch.cat([x[:counted].sum((0, 2, 3)), count]))
        mean, n = sums[:-1] / sums[-1], sums[-1]
        centred = x - mean[:, None, None]
        # A second message, because the difference of two large sums of squares would lose the small variances.
        var = _SumOverRanks.apply(centred[:counted].square().sum((0, 2, 3))) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1).clamp(min=1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronize_norms(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Have every batch norm of ``model`` see the images of all ranks (``--sync-bn``)."""
    if ranks.size == 1:
        LOG.warning("--sync-bn has no effect: this process has no others (torchrun starts several)")
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # children are replaced in place
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = JointBatchNorm2d  # the same parameters, buffers and settings


def mark_blank(model: nn.Module, blank: bool) -> None:
    """Tell the joint norms whether this rank's next batch is a blank image."""
    for module in model.modules():
        if isinstance(module, JointBatchNorm2d):
            module.blank = blank
