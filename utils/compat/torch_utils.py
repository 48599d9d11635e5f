"""Names of ``utils.torch_utils`` since v6.2."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from utils.training.optim import build_optimizer


def smart_inference_mode() -> Any:
    """A decorator for functions that need no gradients."""
    return torch.inference_mode()


def smart_optimizer(
    model: nn.Module, name: str = "Adam", lr: float = 0.001, momentum: float = 0.9, decay: float = 1e-5
) -> torch.optim.Optimizer:
    """As :func:`utils.training.optim.build_optimizer`, under the later name and with its defaults."""
    return build_optimizer(model, name, lr, momentum, decay)
