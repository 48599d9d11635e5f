"""How the maps of a model lie in memory: channels last, where that is the faster way."""

from __future__ import annotations

import torch
from torch import nn


def fastest_memory_format(device: torch.device) -> torch.memory_format:
    """The layout to train in on a device, by tests/benchmarks/train_step.py.

    Channels last on a CPU, where a training step takes about three quarters of the time; bfloat16, torch.compile and
    flushing denormals were measured as well and are no default. Contiguous elsewhere, as v6.1.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def set_memory_format(model: nn.Module, layout: torch.memory_format) -> None:
    """Lay out the kernels of a model in memory, in place; whoever holds its parameters keeps them.

    Only tensors [out, in, h, w] have such layouts: the stacked kernels [K, out, in, h, w] of dynamic convolution stay
    as they are (``Module.to(memory_format=...)`` refuses them). Maps follow the kernels and the images, so give the
    images the same layout. Values do not change; sums over maps come out in another order, so in the last digits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)


def is_channels_last(x: torch.Tensor) -> bool:
    """True when the channels of a map [B, C, H, W] are neighbours in memory, and nothing else is meant by that."""
    return x.stride(1) == 1 and x.shape[1] > 1 and x.shape[2] * x.shape[3] > 1
