"""Checks for infinite values and not-a-number in losses, gradients and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from utils.core.errors import UntrainableError


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return True when no floating-point element is infinite or not-a-number."""
    floats = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floats:
        return True
    # One call for all tensors. The 2-norm is ten times as fast as the maximum, but can overflow where no element does.
    return any(
        bool(torch.stack([norm.float() for norm in torch._foreach_norm(floats, order)]).isfinite().all())
        for order in (2, math.inf)
    )


def first_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with an element that is not finite; None when all are finite."""
    if all_finite(tensors.values()):
        return None
    return next(name for name, tensor in tensors.items() if not all_finite([tensor]))


def first_nonfinite_layer(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Run ``forward`` and return the first module with an output that is not finite; None when all are finite."""
    layers: list[str] = []

    def check_output_of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            outputs = output if isinstance(output, (list, tuple)) else [output]
            if not layers and not all_finite(out for out in outputs if isinstance(out, Tensor)):
                weights = "" if all_finite(module.parameters()) else ", whose weights are not finite"
                layers.append(f"{name} ({type(module).__name__}){weights}")

        return hook

    hooks = [module.register_forward_hook(check_output_of(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in hooks:
            handle.remove()
    return layers[0] if layers else None


def check_weights_finite(model: nn.Module, ema: nn.Module) -> None:
    """Check a model and its EMA model before they are saved.

    Raises:
        UntrainableError: a tensor is not finite.
    """
    for kind, module in (("model", model), ("EMA model", ema)):
        if name := first_nonfinite(module.state_dict()):
            raise UntrainableError(
                f"{name} of the {kind} is not finite; nothing was saved, and the last checkpoint is unchanged; try a "
                "lower lr0 or grad_clip: 10 in the --hyp file"
            )
