"""``ComputeLoss`` of YOLOv5 v6.1, for training loops of other scripts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.yolo import Detect
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.loss.detection import DetectionLoss


class ComputeLoss:
    """The detection loss with the hyper-parameters of a model.

    Args:
        model: a Model, also in a DistributedDataParallel wrapper. Its attribute ``hyp``, a dict or :class:`Hyp`, has
            the gains, used as they are (``train.py`` scales them, see :func:`utils.loss.scale_gains`); default: those
            of :class:`Hyp`.
        autobalance: not supported; the weights of the levels are fixed.

    Raises:
        InputError: ``autobalance``, a model without head, or an unknown hyper-parameter.
    """

    def __init__(self, model: nn.Module, autobalance: bool = False) -> None:
        if autobalance:
            raise InputError("ComputeLoss(autobalance=True) is not supported: remove the argument")
        heads = [module for module in model.modules() if isinstance(module, Detect)]
        if not heads:
            raise InputError(f"ComputeLoss needs a model with a Detect layer, {type(model).__name__} has none")
        given = getattr(getattr(model, "module", model), "hyp", None)
        hyp = given if isinstance(given, Hyp) else Hyp.from_dict(given or {}, "model.hyp")
        self.loss = DetectionLoss(heads[-1].anchors, heads[-1].stride, heads[-1].nc, hyp)

    def __call__(self, p: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of one batch.

        Args:
            p: raw predictions of each level [B, na, ny, nx, 5 + nc].
            targets: [N, 6] image, class, xywh as fractions.

        Returns:
            [1] the sum of the parts times the batch size, and [3] box, objectness and class loss without gradient.
        """
        items = self.loss(p, targets)
        return items.total.reshape(1), torch.stack([items.box, items.obj, items.cls])
