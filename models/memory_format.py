"""How feature maps lie in memory: channels last, where that is faster."""

from __future__ import annotations

import torch
from torch import nn


def fastest_memory_format(device: torch.device) -> torch.memory_format:
    """The memory format for a device, as measured by tests/benchmarks/train_step.py and channels_last.py.

    Channels last on a CPU, where a training step and inference take about three quarters of the time; bfloat16,
    torch.compile and flushing denormals were measured as well and are no default. Contiguous elsewhere, as in v6.1.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def set_memory_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Change the memory format of the kernels of a model, in place; the parameters stay the same objects.

    Only tensors [out, in, h, w] have such formats: the stacked kernels [K, out, in, h, w] of dynamic convolution stay
    as they are (``Module.to(memory_format=...)`` refuses them). Feature maps follow the kernels and the images, so
    give the images the same format. Values do not change; sums over feature maps are added up in another order, so
    they differ in the last digits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4 and not tensor.is_contiguous(memory_format=memory_format):
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def prepare_for_inference(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Give a model the fastest memory format for a device, and return the format for its images.

    An exported file (``contiguous_images`` is True) stays as it is, and takes contiguous images.
    """
    if getattr(model, "contiguous_images", False):
        return torch.contiguous_format
    memory_format = fastest_memory_format(device)
    if memory_format == torch.channels_last:
        set_memory_format(model, memory_format)
    return memory_format


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether the channels of a feature map [B, C, H, W] are neighbours in memory, where the format is unambiguous."""
    return x.stride(1) == 1 and x.shape[1] > 1 and x.shape[2] * x.shape[3] > 1
