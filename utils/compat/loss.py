"""v6.1's ``ComputeLoss``, for training loops of other people's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.yolo import Detect
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.loss.detection import DetectionLoss


class ComputeLoss:
    """The detection loss of a model, with the hyper-parameters it carries.

    Args:
        model: a Model, also wrapped for several GPUs. Its attribute ``hyp``, a dict or :class:`Hyp`, gives the gains,
            used as they are (scale them as the training does, see :func:`scale_gains`); without it the defaults hold.
        autobalance: not offered; the weights of the levels are fixed.

    Raises:
        InputError: ``autobalance``, a model without head, or an unknown hyper-parameter.
    """

    def __init__(self, model: nn.Module, autobalance: bool = False) -> None:
        if autobalance:
            raise InputError("ComputeLoss(autobalance=True) is not offered: leave it out")
        heads = [module for module in model.modules() if isinstance(module, Detect)]
        if not heads:
            raise InputError(f"ComputeLoss needs a model with a Detect layer, {type(model).__name__} has none")
        given = getattr(getattr(model, "module", model), "hyp", None)
        hyp = given if isinstance(given, Hyp) else Hyp.from_dict(given or {}, "model.hyp")
        self.loss = DetectionLoss(heads[-1].anchors, heads[-1].stride, heads[-1].nc, hyp)

    def __call__(self, p: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of one batch.

        Args:
            p: per level the raw map [B, na, ny, nx, 5 + nc].
            targets: [N, 6] image, class, xywh as fractions.

        Returns:
            [1] the sum of the parts times the batch size, and [3] box, objectness, class, cut off from the graph.
        """
        items = self.loss(p, targets)
        return items.total.reshape(1), torch.stack([items.box, items.obj, items.cls])
