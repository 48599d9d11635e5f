"""ComputeLoss, called as in v6.1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.yolo import Model
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.loss import ComputeLoss, DetectionLoss


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("yolov5n.yaml", nc=2)


TARGETS = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.4], [1, 0, 0.3, 0.6, 0.2, 0.3]])


def test_it_gives_the_loss_and_its_parts(model: Model) -> None:
    maps = model(torch.rand(2, 3, 64, 64))
    total, parts = ComputeLoss(model)(maps, TARGETS)
    expected = DetectionLoss(model.head.anchors, model.head.stride, 2, Hyp())(maps, TARGETS)
    assert (total.shape, parts.shape) == ((1,), (3,))
    assert total.item() == expected.total.item()
    assert total.item() == pytest.approx(2 * parts.sum().item(), rel=1e-5)
    assert total.requires_grad
    assert not parts.requires_grad


def test_the_gains_are_those_the_model_carries(model: Model) -> None:
    maps = model(torch.rand(2, 3, 64, 64))
    _, plain = ComputeLoss(model)(maps, TARGETS)
    model.hyp = {"box": 0.1, "obj": 1.0, "cls": 0.5}
    try:
        _, heavy = ComputeLoss(nn.DataParallel(model))(maps, TARGETS)
    finally:
        del model.hyp
    torch.testing.assert_close(heavy / plain, torch.tensor([2.0, 1.0, 1.0]))


def test_what_it_cannot_do_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="autobalance"):
        ComputeLoss(model, autobalance=True)
    with pytest.raises(InputError, match="Detect"):
        ComputeLoss(nn.Linear(1, 1))
