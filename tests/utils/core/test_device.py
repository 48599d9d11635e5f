"""Choice of the device."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from utils.core.device import select_device
from utils.core.errors import InputError


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    properties = SimpleNamespace(name="Test GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)


@pytest.mark.parametrize(
    ("text", "gpus", "expected"),
    [
        ("", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("CPU", 0, "cpu"),
        ("", 2, "cuda:0"),
        ("1", 2, "cuda:1"),
        ("cuda:1", 2, "cuda:1"),
        ("1,0", 2, "cuda:1"),
    ],
)
def test_the_text_of_the_option_becomes_a_device(
    text: str, gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpus)
    assert select_device(text) == torch.device(expected)


@pytest.mark.parametrize(
    ("text", "gpus", "message"),
    [
        ("0", 0, "--device 0: no GPU 0 here, torch sees 0 GPUs; use --device cpu"),
        ("0,3", 2, "--device 0,3: no GPU 3 here, torch sees 2 GPUs; use 0 to 1 or cpu"),
        ("gpu", 2, "--device 'gpu' is not a device"),
        ("0,0", 2, "--device '0,0' is not a device"),
        ("-1", 2, "--device '-1' is not a device"),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name(
    text: str, gpus: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpus)
    with pytest.raises(InputError, match=message):
        select_device(text)


def test_one_line_names_torch_and_every_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpus(monkeypatch, 2)
    with caplog.at_level(logging.INFO):
        select_device("0,1")
    (line,) = caplog.messages
    assert torch.__version__ in line
    assert "GPU 0 Test GPU (8 GiB), GPU 1 Test GPU (8 GiB)" in line
