"""Checks around a training step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.yolo import Model
from utils.core.dist import Ranks
from utils.core.errors import InputError
from utils.loss import LossItems
from utils.training.batch_norm import JointBatchNorm2d, NormWarmUp
from utils.training.freeze import FrozenLayers
from utils.training.step_guard import OTHER_RANK, StepGuard


class Factor(nn.Module):
    """Multiplies its input by ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


class Frozen:
    """In place of frozen layers: counts how often it is asked."""

    calls = 0

    def set_evaluation_mode(self) -> None:
        self.calls += 1


def network(factor: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), Factor(factor), nn.Conv2d(2, 1, 1))


def guard_of(model: nn.Module, warm_norms: bool = False, **given: Any) -> StepGuard:
    return StepGuard(model, Frozen(), NormWarmUp(model, enabled=warm_norms), **given)  # type: ignore[arg-type]


def loss_of(total: float, parts: float = 0.0) -> LossItems:
    """``total`` of this rank; ``parts`` of all ranks."""
    return LossItems(torch.tensor(total), *[torch.tensor(parts)] * 3)


IMAGES = torch.ones(2, 1, 3, 3)


def test_a_loss_is_reported_with_the_layer_it_comes_from() -> None:
    model = network(math.nan)
    guard = guard_of(model)
    fault = guard.check_loss(loss_of(math.nan), lambda: model(IMAGES))
    assert fault == "the loss became nan: the first layer with such an output is 1 (Factor)"
    assert guard.check_loss(loss_of(1.0), lambda: model(IMAGES)) == ""


def test_a_loss_that_is_not_finite_although_all_layers_are_is_reported_as_such() -> None:
    model = network()
    fault = guard_of(model).check_loss(loss_of(math.inf), lambda: model(IMAGES))
    assert fault == "the loss became inf: the outputs of all layers are finite"


def test_all_ranks_search_for_the_layer_that_broke_one_of_them() -> None:
    """Joint batch norms run on all ranks or on none: one that did not would leave the others waiting."""
    model = network()
    runs: list[Tensor] = []
    for ranks in (Ranks(0, 2), Ranks(1, 2)):
        fault = guard_of(model, ranks=ranks).check_loss(loss_of(1.0, math.nan), lambda: runs.append(model(IMAGES)))
        assert fault == OTHER_RANK
    assert len(runs) == 2


def test_the_gradient_is_followed_back_to_where_it_broke() -> None:
    model = network()
    model(IMAGES).sum().backward()
    guard = guard_of(model)
    assert guard.check_gradients() == ""
    for name in ("0.0.weight", "0.1.weight"):  # the layers before the one that broke receive it from there
        model.get_parameter(name).grad.fill_(math.nan)  # type: ignore[union-attr]
    assert "on the way back, 0.1.weight is the first" in guard.check_gradients()
    assert guard_of(model, scaled=True).check_gradients() == ""


@pytest.mark.parametrize("warm_norms", [False, True])
def test_a_skipped_batch_changes_no_statistics(caplog: pytest.LogCaptureFixture, warm_norms: bool) -> None:
    model = network().train()
    guard = guard_of(model, warm_norms, allowed=2)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with guard.batch(2):
        model(IMAGES * math.nan)
    assert not model[0][1].running_mean.isfinite().any()
    guard.skip("broken", "epoch 1", "cure", skipped=1)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert "epoch 1: broken; skipped, 2 of --skip-nonfinite 2" in caplog.text


def test_one_batch_more_than_allowed_stops() -> None:
    guard = guard_of(network(), allowed=2)
    with pytest.raises(InputError, match=r"^epoch 9: broken \(batches skipped before: 2\); cure$"):
        guard.skip("broken", "epoch 9", "cure", skipped=2)


def test_the_batch_norm_of_a_new_model_adapts_faster_inside() -> None:
    fast, slow = network().train(), network().train()
    for model, warm_norms in ((fast, True), (slow, False)):
        with guard_of(model, warm_norms).batch(2):
            model(IMAGES)
    norm, input = fast[0][1], fast[0][0](IMAGES)
    torch.testing.assert_close(norm.running_mean, input.mean((0, 2, 3)))
    torch.testing.assert_close(slow[0][1].running_mean, 0.1 * input.mean((0, 2, 3)))


def test_joint_norms_learn_whether_the_batch_is_empty() -> None:
    model = network()
    model[0][1] = JointBatchNorm2d.of(model[0][1])
    guard, seen = guard_of(model), []
    for images in (0, 2):
        with guard.batch(images):
            seen.append(model[0][1].empty_batch)
    assert seen == [True, False]


def test_frozen_layers_stay_in_evaluation_mode() -> None:
    model = Model("yolov5n.yaml", nc=2)
    guard = StepGuard(model, FrozenLayers(model, (3,)), NormWarmUp(model))
    model.eval()
    guard.start_training()
    assert [model.model[i].training for i in (0, 2, 3, 9)] == [False, False, True, True]


def test_a_scale_that_has_fallen_to_almost_nothing_stops() -> None:
    class Scaler:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        def get_scale(self) -> float:
            return self.scale

    guard = guard_of(network(), scaled=True)
    guard.check_scale(Scaler(1.0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--no-amp"):
        guard.check_scale(Scaler(2.0**-11))  # type: ignore[arg-type]
