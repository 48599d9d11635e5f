"""Training steps on noise: what they use, what they leave, and the memory they take."""

from __future__ import annotations

import os

import pytest
import torch

from models.yolo import Model
from utils.training.dry_run import MIB, random_images, random_targets, tensor_memory, training_memory, training_step

CPU = torch.device("cpu")


def weights_mib(model: Model) -> float:
    return sum(p.numel() for p in model.parameters()) * 4 / MIB


def test_random_boxes_are_inside_every_image_and_the_same_each_time() -> None:
    targets = random_targets(3, 5, CPU)
    assert torch.equal(targets, random_targets(3, 5, CPU))
    assert targets[:, 0].tolist() == [image for image in range(3) for _ in range(8)]
    assert set(targets[:, 1].tolist()) <= {0, 1, 2, 3, 4}
    centre, size = targets[:, 2:4], targets[:, 4:]
    assert (centre - size / 2 >= 0).all()
    assert (centre + size / 2 <= 1).all()
    assert (size >= 0.05).all()


def test_a_step_moves_the_weights_a_little_and_leaves_momenta_but_no_gradients() -> None:
    model = Model("yolov5n.yaml", nc=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = training_step(model, 2, 64, CPU)
    step()
    moved = [(p - before[name]).abs().max().item() for name, p in model.named_parameters()]
    assert 0 < max(moved) < 1e-2
    assert all(p.grad is None for p in model.parameters())
    assert all("momentum_buffer" in step.optimizer.state[p] for p in model.parameters())


def test_images_have_the_channels_of_the_model() -> None:
    model = Model("yolov5n.yaml", ch=1)
    assert random_images(model, 2, 64, CPU).shape == (2, 1, 64, 64)


def test_the_peak_is_what_tensors_hold_at_one_time() -> None:
    def run() -> None:
        first, second = torch.zeros(1_000_000), torch.zeros(500_000)  # 4 MB, 2 MB: the peak
        del first
        third = torch.zeros(750_000)  # 3 MB
        del second, third

    assert tensor_memory(run) == pytest.approx(6e6, rel=1e-3)
    assert tensor_memory(run) == pytest.approx(6e6, rel=1e-3)


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    tensor_memory(lambda: print(torch.zeros(10)))
    assert "KINETO_LOG_LEVEL" not in os.environ


def test_training_takes_weights_gradients_momenta_and_more_for_larger_batches() -> None:
    model = Model("yolov5n.yaml", nc=2)
    one, four = (training_memory(model, batch, 64, CPU) for batch in (1, 4))
    assert 3 * weights_mib(model) < one < 5 * weights_mib(model)
    assert four > one
    assert all(p.grad is None for p in model.parameters())
