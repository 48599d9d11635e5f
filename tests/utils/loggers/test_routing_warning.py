"""A word early in a run on routing that does not get going."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.dynamic import DynamicConv, attention_layers, set_temperature
from utils.core.callbacks import BatchEnd
from utils.loggers.routing_warning import RoutingWarning, at_temperature


def model(temperature: float = 34.0) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(DynamicConv(3, 8, ratio=2.0), DynamicConv(8, 8, 3, ratio=1.0)).eval()
    set_temperature(made, temperature)
    return made


def look(watched: nn.Module, iteration: int = 99, iterations: int = 2000) -> None:
    images = torch.randint(0, 255, (16, 3, 1, 1)).expand(-1, -1, 8, 8).to(torch.uint8)
    batch = SimpleNamespace(images=images)
    watch = RoutingWarning(watched, iterations)
    watch.on_train_batch_end(BatchEnd(epoch=0, index=0, iteration=iteration, batch=batch, losses=()))


def test_uniform_routing_is_named_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    watched = model()
    for _, layer in attention_layers(watched):
        layer.start_uniform()
    look(watched)
    assert (
        "after 100 batches 2 of 2 dynamic layers mix the kernels alike for every image (0.conv, 1.conv)" in caplog.text
    )
    assert "temperature_span: 0.1" in caplog.text


def test_a_single_kernel_for_all_is_named_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    watched = model(1.0)[:1]
    for _, layer in attention_layers(watched):
        nn.init.uniform_(layer.fc1.weight, 1, 2)
        nn.init.zeros_(layer.fc2.weight)
        layer.fc2.weight.data[2] = 1e4
    look(watched)
    assert "1 of 1 dynamic layers use one kernel for every image" in caplog.text and "norm: true" in caplog.text


def test_routing_that_varies_is_not_spoken_of_however_high_the_temperature(caplog: pytest.LogCaptureFixture) -> None:
    watched = model(34.0)
    for _, layer in attention_layers(watched):
        layer.fc2.weight.data *= 20
    with caplog.at_level(logging.INFO):
        look(watched)
    assert caplog.text == ""


def test_it_looks_once_after_a_twentieth_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    watched = model()
    for _, layer in attention_layers(watched):
        layer.start_uniform()
    look(watched, iteration=98)
    look(watched, iteration=100)
    assert caplog.text == ""


def test_weights_at_another_temperature_come_from_the_same_logits() -> None:
    logits = torch.randn(5, 4)
    torch.testing.assert_close(at_temperature(torch.softmax(logits / 34, 1), 34, 1), torch.softmax(logits, 1))
