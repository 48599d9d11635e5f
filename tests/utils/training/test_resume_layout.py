"""What is resumed lies in memory as what it belongs to, so that the run goes on as fast and to the same digit."""

from __future__ import annotations

import torch
from torch import nn

from models.memory_format import set_memory_format
from utils.checkpoint.format import to_plain_types
from utils.config.hyp import Hyp
from utils.training.optim import build_optimizer
from utils.training.optimizer_state import load_gradients, load_optimizer_state, optimizer_state, pending_gradients

LAST = torch.channels_last


def make() -> tuple[nn.Conv2d, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3)
    set_memory_format(model, LAST)
    return model, build_optimizer(model, "AdamW", Hyp())


def test_momenta_and_waiting_gradients_come_back_in_the_layout_of_their_parameters() -> None:
    model, optimizer = make()
    images = torch.rand(2, 3, 8, 8)
    model(images).sum().backward()
    optimizer.step()
    saved = to_plain_types(optimizer_state(optimizer, model)), to_plain_types(pending_gradients(model))
    assert saved[1]["weight"].is_contiguous()

    other, fresh = make()
    load_optimizer_state(fresh, other, saved[0])
    load_gradients(other, saved[1])
    assert other.weight.grad is not None and model.weight.grad is not None
    assert torch.equal(other.weight.grad, model.weight.grad)
    for tensor in (other.weight.grad, fresh.state[other.weight]["exp_avg"], fresh.state[other.weight]["exp_avg_sq"]):
        assert tensor.is_contiguous(memory_format=LAST)
        assert not tensor.requires_grad
    assert torch.equal(fresh.state[other.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])
    assert fresh.state[other.weight]["step"] == 1
