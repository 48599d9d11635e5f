"""The detection loss: hand-worked values, properties, then the figures of the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from utils.config.hyp import Hyp
from utils.loss.detection import DetectionLoss, scale_gains
from utils.loss.targets import assign_targets

ANCHORS = torch.tensor([[[2.0, 2.0]]])
TARGET = torch.tensor([[0, 1, 3.5 / 8, 3.5 / 8, 2 / 8, 2 / 8]])  # centred in cell (3, 3), as large as the anchor
PLAIN = Hyp(box=1.0, obj=1.0, cls=1.0)


def one_level(nc: int = 3, hyp: Hyp = PLAIN) -> DetectionLoss:
    return DetectionLoss(ANCHORS, torch.tensor([8.0]), nc, hyp)


def test_zero_logits_on_a_box_that_equals_the_anchor_give_hand_worked_losses() -> None:
    # sigmoid(0) = 1/2: centre 0.5, size 1 x anchor, so CIoU is 1; every cross-entropy is ln 2, the goal's value aside.
    items = one_level()([torch.zeros(1, 1, 8, 8, 8)], TARGET)
    assert float(items.box) == pytest.approx(0, abs=1e-6)
    assert float(items.obj) == pytest.approx(4 * math.log(2))
    assert float(items.cls) == pytest.approx(math.log(2))
    assert float(items.total) == pytest.approx(5 * math.log(2))


def test_total_is_the_sum_of_the_parts_times_the_batch_size() -> None:
    torch.manual_seed(0)
    items = one_level()([torch.randn(3, 1, 8, 8, 8)], TARGET)
    assert float(items.total) == pytest.approx(3 * float(items.box + items.obj + items.cls), rel=1e-6)


def test_only_the_total_carries_a_graph() -> None:
    items = one_level()([torch.zeros(1, 1, 8, 8, 8, requires_grad=True)], TARGET)
    assert items.total.requires_grad
    assert not any(part.requires_grad for part in (items.box, items.obj, items.cls))


def test_objectness_is_trained_without_any_box() -> None:
    level = torch.zeros(2, 1, 8, 8, 8, requires_grad=True)
    items = one_level()([level], torch.zeros(0, 6))
    items.total.backward()
    assert torch.isfinite(items.total)
    assert float(items.box) == float(items.cls) == 0
    assert level.grad is not None
    assert (level.grad[..., 4] > 0).all()
    assert (level.grad[..., :4] == 0).all()
    assert (level.grad[..., 5:] == 0).all()


def test_the_objectness_goal_takes_no_gradient() -> None:
    level = torch.randn(1, 1, 8, 8, 8, requires_grad=True)
    one_level(hyp=Hyp(box=0.0, obj=1.0, cls=0.0))([level], TARGET).total.backward()
    assert level.grad is not None
    assert (level.grad[..., :4] == 0).all()


def test_a_single_class_has_no_class_loss() -> None:
    target = TARGET * torch.tensor([1, 0, 1, 1, 1, 1])
    assert float(one_level(nc=1)([torch.randn(1, 1, 8, 8, 6)], target).cls) == 0


def test_the_last_claim_on_a_cell_sets_its_objectness() -> None:
    wide = TARGET.clone()
    wide[0, 4] *= 2  # half the IoU with the anchor
    level = torch.zeros(1, 1, 8, 8, 8)
    level[..., 4] = 4  # far from 0, so that the goal shows in the loss
    loss = one_level(hyp=Hyp(box=0.0, obj=1.0, cls=0.0))
    alone = [float(loss([level], rows).obj) for rows in (TARGET, wide)]
    assert alone[0] < alone[1]
    assert float(loss([level], torch.cat([TARGET, wide])).obj) == pytest.approx(alone[1])
    assert float(loss([level], torch.cat([wide, TARGET])).obj) == pytest.approx(alone[0])


def test_bfloat16_maps_under_autocast_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    level = torch.randn(2, 1, 8, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        items = one_level()([level], TARGET)
    assert items.total.dtype == torch.float32
    assert float(items.total) == pytest.approx(float(one_level()([level.float()], TARGET).total), rel=1e-6)


def test_gradients_of_half_precision_maps_are_finite() -> None:
    level = (torch.randn(2, 1, 8, 8, 8) * 20).half().requires_grad_()
    one_level()([level], TARGET).total.backward()
    assert level.grad is not None
    assert torch.isfinite(level.grad).all()


@pytest.mark.parametrize(
    ("levels", "balance"),
    [
        (1, (4.0,)),
        (2, (4.0, 1.0)),
        (3, (4.0, 1.0, 0.4)),
        (4, (4.0, 1.0, 0.25, 0.06)),
        (6, (4, 1, 0.25, 0.06, 0.02, 0.02)),
    ],
)
def test_levels_are_balanced_by_their_number(levels: int, balance: tuple[float, ...]) -> None:
    loss = DetectionLoss(torch.ones(levels, 1, 2), 2.0 ** torch.arange(levels), 3, PLAIN)
    assert loss.balance == balance


def test_strides_must_fit_the_anchors_and_ascend() -> None:
    with pytest.raises(ValueError, match="2 levels, but strides of 1"):
        DetectionLoss(torch.ones(2, 1, 2), torch.tensor([8.0]), 3, PLAIN)
    with pytest.raises(ValueError, match="ascend"):
        DetectionLoss(torch.ones(2, 1, 2), torch.tensor([16.0, 8.0]), 3, PLAIN)


def test_scaling_leaves_the_gains_given_alone() -> None:
    hyp = Hyp()
    scaled = scale_gains(hyp, nl=3, nc=40, imgsz=320)
    assert (scaled.cls, scaled.obj) == (0.25, 0.25)
    assert hyp == Hyp()
    assert scaled.lr0 == hyp.lr0


def test_scaled_gains_are_those_of_the_reference(golden: Any) -> None:
    for case in golden.json("tensors")["hyp_scaling"]:
        scaled = scale_gains(Hyp(box=0.05, cls=0.5, obj=1.0), case["nl"], case["nc"], case["imgsz"])
        for key in ("box", "cls", "obj"):
            assert getattr(scaled, key) == pytest.approx(case[key], rel=1e-12)


def reference_inputs(golden: Any, case: dict[str, Any]) -> tuple[DetectionLoss, list[Tensor], Tensor]:
    """Loss, maps and targets of one stored case."""
    figures = golden.json("tensors")
    p6 = "p6" in case["preds"]
    key = "p6_anchors_in_grid_units" if p6 else None
    anchors = torch.tensor(figures[key] if key else figures["build_targets"]["anchors_in_grid_units"])
    nc = case["nc"]
    prefix = "loss/p6_pred" if p6 else "loss/p5_pred"
    preds = [torch.from_numpy(golden.array(f"{prefix}{i}"))[..., : 5 + nc].clone() for i in range(len(anchors))]
    name = case["targets"].split(",")[0].split(" ")[0]
    targets = torch.zeros(0, 6) if name == "none" else torch.from_numpy(golden.array(name)).clone()
    if p6:
        targets = targets[targets[:, 0] < 2]
    if nc == 1:
        targets[:, 1] = 0
    loss = DetectionLoss(anchors, 8 * 2.0 ** torch.arange(len(anchors)), nc, Hyp.from_dict(case["hyp"]))
    return loss, [level.requires_grad_() for level in preds], targets


def test_losses_and_gradients_are_those_of_the_reference(golden: Any) -> None:
    checked = 0
    for case in golden.json("tensors")["loss"]:
        # Switches of the reference that nothing in it turns on, and that this code does without.
        if any(word in case["name"] for word in ("gr 0.5", "sort_obj_iou", "autobalance")):
            continue
        loss, preds, targets = reference_inputs(golden, case)
        items = loss(preds, targets)
        items.total.backward()
        found = [float(part.detach()) for part in (items.box, items.obj, items.cls, items.total)]
        assert found == pytest.approx([case[key] for key in ("lbox", "lobj", "lcls", "total")], rel=1e-5), case["name"]
        gradients = [level.grad for level in preds if level.grad is not None]
        assert [float(g.norm()) for g in gradients] == pytest.approx(case["grad_norms"], rel=1e-5), case["name"]
        assert [float(g.sum()) for g in gradients] == pytest.approx(case["grad_sums"], rel=1e-4), case["name"]
        checked += 1
    assert checked == 15


def test_one_whole_gradient_is_that_of_the_reference(golden: Any) -> None:
    loss, preds, targets = reference_inputs(golden, golden.json("tensors")["loss"][0])
    loss(preds, targets).total.backward()
    expected = torch.from_numpy(golden.array("loss/p5_grad2_scratch_low"))
    torch.testing.assert_close(preds[2].grad, expected, rtol=1e-4, atol=1e-7)


def test_the_case_with_duplicates_has_cells_claimed_twice(golden: Any) -> None:
    """Otherwise the comparison above would say nothing about their order."""
    figures = golden.json("tensors")
    anchors = torch.tensor(figures["build_targets"]["anchors_in_grid_units"])
    rows = torch.from_numpy(golden.array("loss/targets_with_duplicates"))
    extra = 0
    for found in assign_targets(rows, [(16, 16), (8, 8), (4, 4)], anchors, 4.0):
        slots = torch.stack([found.image, found.anchor, found.gj, found.gi], dim=1)
        extra += len(slots) - len(slots.unique(dim=0))
    assert extra == figures["duplicate_claims"]
