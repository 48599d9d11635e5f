"""Weighted cross-entropies, by hand and against the reference's elementwise values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from utils.loss.focal import BCEBlurWithLogitsLoss, FocalLoss, QFocalLoss, WeightedBCE, smooth_bce

ZERO, ONE = torch.zeros(1), torch.ones(1)


def test_focal_loss_at_an_undecided_logit_is_worked_by_hand() -> None:
    # p = 1/2: miss 1/2, cross-entropy ln 2; alpha 1/4 on the positive side, 3/4 on the negative.
    focal = FocalLoss(gamma=2.0, alpha=0.25)
    assert float(focal(ZERO, ONE)) == pytest.approx(0.25 * 0.25 * math.log(2))
    assert float(focal(ZERO, ZERO)) == pytest.approx(0.75 * 0.25 * math.log(2))


def test_quality_focal_loss_measures_the_distance_to_a_soft_target() -> None:
    # p = 1/2, t = 0.8: distance 0.3, alpha_t = 0.25 * 0.8 + 0.75 * 0.2 = 0.35, cross-entropy ln 2 for any t.
    loss = QFocalLoss(gamma=2.0, alpha=0.25)(ZERO, ONE * 0.8)
    assert float(loss) == pytest.approx(0.35 * 0.3**2 * math.log(2), rel=1e-5)


def test_gamma_zero_and_alpha_half_are_half_the_plain_cross_entropy() -> None:
    logits, targets = torch.randn(50), torch.rand(50)
    plain = WeightedBCE()(logits, targets)
    torch.testing.assert_close(FocalLoss(0.0, 0.5)(logits, targets), plain / 2)
    torch.testing.assert_close(QFocalLoss(0.0, 0.5)(logits, targets), plain / 2)


def test_blur_forgives_a_confident_find_without_a_label() -> None:
    blur, plain = BCEBlurWithLogitsLoss(reduction="none"), WeightedBCE(reduction="none")
    sure = torch.tensor([9.0])
    assert float(blur(sure, ZERO)) < 0.01 * float(plain(sure, ZERO))
    torch.testing.assert_close(blur(-sure, ONE), plain(-sure, ONE))


def test_pos_weight_multiplies_the_positive_part() -> None:
    assert float(WeightedBCE(3.0)(ZERO, ONE)) == pytest.approx(3 * math.log(2))
    assert float(WeightedBCE(3.0)(ZERO, ZERO)) == pytest.approx(math.log(2))


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'median'"):
        FocalLoss(reduction="median")


def test_label_smoothing_is_that_of_the_reference() -> None:
    assert smooth_bce(0.0) == (1.0, 0.0)
    assert smooth_bce(0.1) == (0.95, 0.05)
    assert smooth_bce(0.2) == (0.9, 0.1)


@pytest.mark.parametrize(
    ("loss", "name"), [(FocalLoss(1.5, 0.25, 1.0, "none"), "focal"), (QFocalLoss(1.5, 0.25, 1.0, "none"), "qfocal")]
)
def test_elements_are_those_of_the_reference(golden: Any, loss: nn.Module, name: str) -> None:
    logits, targets = (torch.from_numpy(golden.array(f"loss/elem_{key}")) for key in ("logits", "targets"))
    expected = torch.from_numpy(golden.array(f"loss/elem_{name}_none"))
    torch.testing.assert_close(loss(logits, targets), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (FocalLoss(), "focal_mean_g1.5_a0.25"),
        (FocalLoss(reduction="sum"), "focal_sum"),
        (FocalLoss(pos_weight=2.0), "focal_mean_pos_weight2"),
        (QFocalLoss(), "qfocal_mean"),
        (BCEBlurWithLogitsLoss(), "bce_blur_alpha0.05_mean"),
    ],
)
def test_reduced_losses_are_those_of_the_reference(golden: Any, loss: nn.Module, name: str) -> None:
    logits, targets = (torch.from_numpy(golden.array(f"loss/elem_{key}")) for key in ("logits", "targets"))
    assert float(loss(logits, targets)) == pytest.approx(golden.json("tensors")["elementwise_losses"][name], rel=1e-5)
