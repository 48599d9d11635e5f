"""Watching for numbers that are no numbers any more, before they reach the weights or a checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from utils.core.dist import ALONE, Ranks
from utils.core.errors import UntrainableError

LOG = logging.getLogger(__name__)
ELSEWHERE = "the loss became not-a-number or infinite in another process"
SMALLEST_SCALE = 2.0**-10  # of the loss in float16: below it the gradients are not merely large, they are broken


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """True when no floating-point element is infinite or not-a-number."""
    floats = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floats:
        return True
    # All in one call. Lengths are ten times as fast as largest magnitudes, but can overflow where no element does.
    return any(
        bool(torch.stack([norm.float() for norm in torch._foreach_norm(floats, order)]).isfinite().all())
        for order in (2, math.inf)
    )


def first_unsound(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with an element that is not finite, None when all are sound."""
    if all_finite(tensors.values()):
        return None
    return next(name for name, tensor in tensors.items() if not all_finite([tensor]))


def first_unsound_layer(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """The module whose output is the first not to be finite when ``forward`` is run again; None when all are."""
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            outputs = output if isinstance(output, (list, tuple)) else [output]
            if not found and not all_finite(out for out in outputs if isinstance(out, Tensor)):
                weights = "" if all_finite(module.parameters()) else ", whose weights are not finite"
                found.append(f"{name} ({type(module).__name__}){weights}")

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


class NumberWatch:
    """Tells which batch and layer broke, and leaves out a few such batches if that is wanted.

    Args:
        model: in training.
        allowed: batches that may be left out in the whole run; one more raises.
        scaled: the gradients are scaled (float16): single overflows are normal, and the scaler sees to them.
        ranks: the processes that share each batch, of which all leave it out or none does.

    Attributes:
        skipped: batches left out so far.
    """

    def __init__(self, model: nn.Module, allowed: int = 0, scaled: bool = False, ranks: Ranks = ALONE) -> None:
        self.model, self.allowed, self.scaled, self.ranks = model, allowed, scaled, ranks
        self.skipped = 0
        self._buffers: dict[str, Tensor] = {}

    def before_batch(self) -> None:
        """Call before the forward pass: a batch that is left out must not leave its batch norm statistics behind."""
        if self.allowed:
            self._buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}

    def of_loss(self, loss: Tensor, forward: Callable[[], Any], joint: Tensor | None = None) -> str:
        """What is wrong with the loss, "" when nothing is. ``forward`` runs the batch once more, to find the layer.

        ``joint`` is finite only if the loss is on all processes, so that they all see a fault of one.
        """
        if torch.isfinite(loss if joint is None else joint):
            return ""
        layer = first_unsound_layer(self.model, forward)  # on all processes: joint batch norms wait for one another
        if torch.isfinite(loss) and self.ranks.size > 1:
            return ELSEWHERE
        where = f"the first layer with such an output is {layer}" if layer else "the outputs of all layers are finite"
        return f"the loss became {loss.item()}: {where}"

    def of_gradient(self) -> str:
        """What is wrong with the gradients of a batch, "" when nothing is or the scaler sees to it."""
        # Backward runs from the last layer to the first: the last unsound one is where it began.
        gradients = {n: p.grad for n, p in reversed(list(self.model.named_parameters())) if p.grad is not None}
        name = None if self.scaled else first_unsound(gradients)
        return f"the gradient is not finite: on the way back, {name} is the first with such a one" if name else ""

    def check_scale(self, scaler: torch.amp.GradScaler) -> None:
        """Look how far the scale of the loss has come down with the overflows.

        Raises:
            UntrainableError: too far.
        """
        if self.scaled and scaler.get_scale() < SMALLEST_SCALE:
            raise UntrainableError(
                "the gradients overflow float16 however small the loss is scaled; weights/last.pt is untouched: go on "
                "from it with --no-amp, or start anew with a lower lr0"
            )

    def leave_out(self, fault: str, place: str, cure: str) -> None:
        """Undo a batch, faulty on some process; its gradients, and any gathered with them, are for the caller to drop.

        Raises:
            UntrainableError: no more batches may be left out.
        """
        told = self.ranks.gather((fault, place))
        fault, place = next((each for each in told if each[0] != ELSEWHERE), told[0])
        if self.skipped >= self.allowed:
            spent = f" (batches left out before: {self.skipped})" if self.skipped else ""
            raise UntrainableError(f"{place}: {fault}{spent}; {cure}")
        self.skipped += 1
        for name, buffer in self.model.named_buffers():
            buffer.copy_(self._buffers[name])
        LOG.warning("%s: %s; left out, %d of --skip-nonfinite %d", place, fault, self.skipped, self.allowed)

    def check_state(self, average: nn.Module) -> None:
        """Look at the model and its average before they are saved.

        Raises:
            UntrainableError: a tensor is not finite.
        """
        for part, module in (("model", self.model), ("average", average)):
            name = first_unsound(module.state_dict())
            if name:
                raise UntrainableError(
                    f"{name} of the {part} is not finite any more; nothing was saved, and the last checkpoint is "
                    "untouched; try a lower lr0 or grad_clip: 10 in the --hyp file"
                )
