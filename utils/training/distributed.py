"""A model trained by several processes: its device and its wrapper."""

from __future__ import annotations

import copy
import logging

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.yolo import Model
from utils.core.dist import Ranks
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)


def device_of_rank(device: str, ranks: Ranks) -> str:
    """Choose the device of ``--device`` that this process uses.

    Raises:
        InputError: several for a single process, or fewer than this machine has processes.
    """
    wanted = device.strip().lower().replace("cuda:", "")
    numbers = [word for word in wanted.split(",") if word]
    if ranks.size == 1:
        if len(numbers) > 1:
            raise InputError(
                f"--device {device}: each GPU needs its own process: torchrun --nproc_per_node={len(numbers)} "
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


def distribute(model: Model, device: torch.device, ranks: Ranks) -> nn.Module:
    """Wrap ``model`` so that backward gives every rank the mean of all their gradients."""
    if ranks.size == 1:
        return model
    idle = without_gradient(model)
    if idle:
        LOG.warning("no gradient reaches %s: trained as if frozen", ", ".join(idle))
    gpus = [device.index] if device.type == "cuda" else None
    # Searching for parameters without gradient costs time in every step, so only where there are some.
    return DistributedDataParallel(model, device_ids=gpus, find_unused_parameters=bool(idle))


def without_gradient(model: Model) -> list[str]:
    """Return the names of trainable parameters that a training step leaves without a gradient."""
    twin = copy.deepcopy(model).train()
    first = next(twin.parameters())
    side = 2 * int(twin.stride.max())
    with torch.random.fork_rng(devices=[]):
        predictions = twin(torch.zeros(2, twin.yaml["ch"], side, side, device=first.device, dtype=first.dtype))
        torch.stack([level.sum() for level in predictions]).sum().backward()
    return [name for name, p in twin.named_parameters() if p.requires_grad and p.grad is None]
