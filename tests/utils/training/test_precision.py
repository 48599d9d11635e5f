"""Mixed precision is tried before a run relies on it."""

from __future__ import annotations

import logging
import math
import re

import pytest
import torch

from models.yolo import Model
from utils.core.errors import InputError
from utils.training import precision
from utils.training.precision import amp_deviation, kept_precision, mixed_precision

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model("yolov5n_dynamic.yaml", nc=2)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.002), (torch.bfloat16, 0.01)])
def test_a_model_is_nearly_the_same_in_mixed_precision(model: Model, dtype: torch.dtype, limit: float) -> None:
    assert 0 < amp_deviation(model, IMAGES, dtype) < limit


def test_activations_beyond_float16_are_seen_and_bfloat16_has_room_for_them(model: Model) -> None:
    with torch.no_grad():
        model.model[0].conv.weight.mul_(1e7)
        model.model[1].conv.weight.mul_(1e-7)
    assert amp_deviation(model, IMAGES, torch.float16) == math.inf
    assert amp_deviation(model, IMAGES, torch.bfloat16) < 0.02


def test_outputs_of_nothing_are_seen(model: Model) -> None:
    """What some GPUs do: zeros instead of an error."""

    def zeros(module: torch.nn.Module, _: object, out: torch.Tensor) -> torch.Tensor:
        return out * (0 if torch.is_autocast_enabled("cpu") else 1)

    for conv in model.head.m:
        conv.register_forward_hook(zeros)
    assert amp_deviation(model, IMAGES, torch.bfloat16) == pytest.approx(1)


def test_the_check_leaves_model_and_random_numbers_as_they_are(model: Model) -> None:
    before = {name: value.clone() for name, value in model.train().state_dict().items()}
    numbers = torch.get_rng_state()
    assert mixed_precision(True, model, CPU)
    assert model.training and torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("requested", "device", "difference", "used", "message"),
    [
        (None, CPU, math.inf, False, ""),  # not even tried
        (False, GPU, math.inf, False, ""),
        (None, GPU, 0.0004, True, r"mixed precision \(float16\): outputs differ from those in float32 by 0.04 %"),
        (True, CPU, 0.004, True, r"mixed precision \(bfloat16\): outputs differ .* by 0.4 %"),
        (None, GPU, math.inf, False, "does not work here .* outputs are not finite; training in float32"),
        (None, GPU, 0.3, False, "differ from those in float32 by 30 %; training in float32"),
        (True, GPU, 0.3, True, "by 30 %; used since --amp requests it: --no-amp is safe"),
    ],
)
def test_the_default_falls_back_and_a_request_is_warned_of(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    requested: bool | None,
    device: torch.device,
    difference: float,
    used: bool,
    message: str,
) -> None:
    monkeypatch.setattr(precision, "amp_deviation", lambda *_: difference)
    monkeypatch.setattr(precision, "_noise", lambda *_: None)
    with caplog.at_level(logging.INFO):
        assert mixed_precision(requested, model, device) is used
    assert len(caplog.messages) == bool(message)
    assert re.search(message, caplog.text)


def test_a_request_for_what_breaks_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "amp_deviation", lambda *_: math.inf)
    with pytest.raises(InputError, match=r"--amp: mixed precision \(bfloat16\) .* not finite; omit --amp"):
        mixed_precision(True, model, CPU)


@pytest.mark.parametrize(
    ("requested", "before", "device", "used"),
    [
        (None, True, GPU, True),
        (None, None, GPU, True),  # a checkpoint that does not say
        (None, False, GPU, False),  # it did not work
        (None, True, CPU, False),  # begun on a GPU
        (True, False, GPU, True),
        (False, True, GPU, False),
        (True, None, CPU, True),
    ],
)
def test_a_resumed_run_keeps_its_precision(
    requested: bool | None, before: bool | None, device: torch.device, used: bool
) -> None:
    assert kept_precision(requested, before, device) is used
