"""DetectMultiBackend and attempt_load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models.experimental
from utils.checkpoint import load_model
from utils.errors import InputError
from utils.inference.backends import DetectMultiBackend
from utils.inference.load import attempt_load


@pytest.fixture(scope="module")
def backend(eager_weights: Path) -> DetectMultiBackend:
    return DetectMultiBackend(eager_weights)


def picture() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_it_has_the_attributes_that_scripts_read(backend: DetectMultiBackend) -> None:
    assert (backend.stride, backend.names) == (32, ["ant", "bee"])
    assert (backend.pt, backend.jit, backend.onnx, backend.engine, backend.fp16) == (True, False, False, False, False)
    assert backend.device == torch.device("cpu")


def test_it_answers_with_the_boxes_of_the_model(backend: DetectMultiBackend, eager_weights: Path) -> None:
    model, _ = load_model(eager_weights)
    with torch.no_grad():
        expected, maps = model(picture())
        torch.testing.assert_close(backend(picture()), expected, rtol=1e-4, atol=1e-2)  # batch norm is folded in
        decoded, raw = backend(picture(), val=True)
    assert torch.equal(decoded, backend(picture()))
    assert [level.shape for level in raw] == [level.shape for level in maps]


def test_augment_adds_candidates(backend: DetectMultiBackend) -> None:
    assert backend(picture(), augment=True).shape[1] > backend(picture()).shape[1]


def test_the_model_may_be_switched_to_half_precision(eager_weights: Path) -> None:
    backend = DetectMultiBackend(str(eager_weights))
    backend.model.half()
    assert backend.fp16
    backend.model.float()
    assert not backend.fp16


def test_warming_up_does_nothing_on_a_cpu(backend: DetectMultiBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "forward", lambda *_: pytest.fail("ran"))
    backend.warmup(imgsz=(1, 3, 64, 64), half=False)


@pytest.mark.parametrize("name", ["best.onnx", "best.engine", "best"])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"only \.pt files are supported so far"):
        DetectMultiBackend(name)


def test_no_file_is_refused() -> None:
    with pytest.raises(InputError, match="no file"):
        DetectMultiBackend([])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        DetectMultiBackend("absent.pt")


def test_several_files_become_an_ensemble(eager_weights: Path, backend: DetectMultiBackend) -> None:
    pair = DetectMultiBackend([eager_weights, eager_weights])
    single = backend(picture())
    assert torch.equal(pair(picture()), torch.cat([single, single], 1))
    assert pair(picture(), val=True)[1] is None
    assert pair(picture(), augment=True).shape[1] == 2 * backend(picture(), augment=True).shape[1]
    assert pair.names == ["ant", "bee"]


def test_visualize_is_said_to_have_no_effect(backend: DetectMultiBackend, caplog: pytest.LogCaptureFixture) -> None:
    backend(picture(), visualize=True)
    assert "no effect" in caplog.text


def test_attempt_load_takes_the_arguments_of_old_calls(eager_weights: Path) -> None:
    model = attempt_load(str(eager_weights), map_location="cpu")
    assert model(picture(), augment=False)[0].shape == (1, 252, 7)
    assert not model.training
    assert int(model.stride.max()) == 32
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_attempt_load_can_leave_batch_norm_in_place(eager_weights: Path) -> None:
    model = attempt_load(eager_weights, fuse=False)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attempt_load_is_found_where_scripts_look_for_it() -> None:
    assert models.experimental.attempt_load is attempt_load
