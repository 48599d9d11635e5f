"""Binary cross-entropy on logits, and focal losses: ``weight(p, t) * bce(logit, t)`` with p = sigmoid(logit)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def smooth_bce(eps: float = 0.1) -> tuple[float, float]:
    """Return the targets of (positive, negative) classes with label smoothing ``eps``: (1 - eps/2, eps/2)."""
    return 1.0 - eps / 2, eps / 2


class WeightedBCE(nn.Module):
    """Binary cross-entropy whose elements are weighted by :meth:`weight`; in this base class by 1.

    Args:
        pos_weight: factor on the positive part of the cross-entropy.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: any other reduction.
    """

    def __init__(self, pos_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.pos_weight = pos_weight
        self.reduction = reduction

    def weight(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        """Return a factor per element; None: 1."""
        return None

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return a scalar, or with reduction "none" the shape of the inputs; ``targets`` are in 0..1."""
        # Without a weight the loss is faster and needs less memory.
        positive = None if self.pos_weight == 1 else logits.new_tensor(self.pos_weight)
        factor = self.weight(logits, targets)
        if factor is None:
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction=self.reduction)
        loss = factor * F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction="none")
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


class _Focusing(WeightedBCE):
    """Weight ``alpha_t * miss ** gamma``, with ``miss`` from a subclass."""

    def __init__(
        self, gamma: float = 1.5, alpha: float = 0.25, pos_weight: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__(pos_weight, reduction)
        self.gamma = gamma
        self.alpha = alpha

    def miss(self, probability: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def weight(self, logits: Tensor, targets: Tensor) -> Tensor:
        # alpha for t = 1, 1 - alpha for t = 0, linear in between for soft targets
        side = (1 - self.alpha) + (2 * self.alpha - 1) * targets
        return side * self.miss(logits.sigmoid(), targets) ** self.gamma


class FocalLoss(_Focusing):
    """Focal loss, arXiv 1708.02002: a miss is 1 - p_t, the probability of the wrong class."""

    def miss(self, probability: Tensor, targets: Tensor) -> Tensor:
        # = 1 - [t p + (1 - t)(1 - p)]
        return probability + targets - 2 * probability * targets


class QFocalLoss(_Focusing):
    """Quality focal loss, arXiv 2006.04388: a miss is the distance |t - p| to a soft target."""

    def miss(self, probability: Tensor, targets: Tensor) -> Tensor:
        return (targets - probability).abs()


class BCEBlurWithLogitsLoss(WeightedBCE):
    """Cross-entropy with a lower weight for confident predictions of objects that are not labelled.

    The weight is 1 - exp((p - t - 1) / alpha): near 0 for p = 1 at t = 0, near 1 elsewhere.
    """

    def __init__(self, alpha: float = 0.05, pos_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(pos_weight, reduction)
        self.alpha = alpha

    def weight(self, logits: Tensor, targets: Tensor) -> Tensor:
        excess = logits.sigmoid() - targets
        return -torch.expm1((excess - 1) / (self.alpha + 1e-4))  # 1e-4 allows alpha = 0
