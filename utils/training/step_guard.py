"""Checks around a training step, so that a faulty batch changes neither weights nor batch norm statistics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from utils.core.dist import ALONE, Ranks
from utils.core.errors import UntrainableError
from utils.loss import LossItems
from utils.training.batch_norm import JointBatchNorm2d, NormWarmUp
from utils.training.finite_checks import first_nonfinite, first_nonfinite_layer
from utils.training.freeze import FrozenLayers

LOG = logging.getLogger(__name__)
OTHER_RANK = "the loss became not-a-number or infinite in another process"
SMALLEST_SCALE = 2.0**-10  # of the loss in float16; gradients that still overflow are not just large but not finite


class StepGuard:
    """Guards the batch norm statistics and the weights of a model against faulty and empty batches.

    ``allowed`` batches whose loss or gradient is not finite are skipped, by all ranks or by none; one more ends the
    run with the layer in which the fault began.

    Args:
        model: in training.
        frozen: layers of it that are not trained.
        norms: batch norm statistics that adapt faster at the start of a run.
        allowed: batches that may be skipped in the whole run.
        scaled: the loss is scaled (float16): the scaler itself handles gradients that are not finite.
        ranks: the processes that share each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        frozen: FrozenLayers,
        norms: NormWarmUp,
        allowed: int = 0,
        scaled: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.allowed, self.scaled, self.ranks = model, allowed, scaled, ranks
        self._frozen, self._norms = frozen, norms
        self._joint_norms = [module for module in model.modules() if isinstance(module, JointBatchNorm2d)]
        self._buffers: dict[str, Tensor] = {}

    def start_training(self) -> None:
        """Set the model to training mode, but frozen layers to evaluation mode, so that their statistics stay."""
        self.model.train()
        self._frozen.set_evaluation_mode()

    @contextlib.contextmanager
    def batch(self, images: int) -> Iterator[None]:
        """Open around forward and backward pass of a batch.

        Args:
            images: how many of the batch count on this rank; 0: none, it has an empty image to keep the ranks in step.
        """
        if self.allowed:
            self._buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        for norm in self._joint_norms:
            norm.empty_batch = images == 0
        with self._norms.adapting():
            yield

    def check_loss(self, items: LossItems, forward: Callable[[], Any]) -> str:
        """Check that the loss is finite on all ranks.

        Args:
            items: losses of the batch.
            forward: repeats the forward pass, to find the layer in which the fault began.

        Returns:
            The fault in words; "" when there is none.
        """
        if torch.isfinite(items.check):
            return ""
        layer = first_nonfinite_layer(self.model, forward)  # on all ranks: joint batch norms wait for one another
        if torch.isfinite(items.total) and self.ranks.size > 1:
            return OTHER_RANK
        where = f"the first layer with such an output is {layer}" if layer else "the outputs of all layers are finite"
        return f"the loss became {items.total.item()}: {where}"

    def check_gradients(self) -> str:
        """Check that the gradients are finite, unless the scaler does.

        Returns:
            The fault in words; "" when there is none.
        """
        if self.scaled:
            return ""
        # Backward runs from the last layer to the first, so the last gradient that is not finite is where it began.
        parameters = reversed(list(self.model.named_parameters()))
        name = first_nonfinite({name: p.grad for name, p in parameters if p.grad is not None})
        return f"the gradient is not finite: on the way back, {name} is the first with such a one" if name else ""

    def check_scale(self, scaler: torch.amp.GradScaler) -> None:
        """Check how far overflows have lowered the scale of the loss.

        Raises:
            UntrainableError: below ``SMALLEST_SCALE``.
        """
        if self.scaled and scaler.get_scale() < SMALLEST_SCALE:
            raise UntrainableError(
                "the gradients overflow float16 however small the loss is scaled; weights/last.pt is unchanged: resume "
                "it with --no-amp, or start again with a lower lr0"
            )

    def skip(self, fault: str, place: str, cure: str, skipped: int) -> None:
        """Restore the batch norm statistics before a faulty batch; the caller has to drop the gradients.

        Args:
            fault: of this rank; another one may know more.
            place: the batch in words.
            cure: what to do when no more batches may be skipped.
            skipped: batches skipped before.

        Raises:
            UntrainableError: no more batches may be skipped.
        """
        reports = self.ranks.gather((fault, place))
        fault, place = next((report for report in reports if report[0] != OTHER_RANK), reports[0])
        if skipped >= self.allowed:
            before = f" (batches skipped before: {skipped})" if skipped else ""
            raise UntrainableError(f"{place}: {fault}{before}; {cure}")
        for name, buffer in self.model.named_buffers():
            buffer.copy_(self._buffers[name])
        LOG.warning("%s: %s; skipped, %d of --skip-nonfinite %d", place, fault, skipped + 1, self.allowed)
