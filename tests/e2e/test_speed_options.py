"""What makes training fast or small: memory layout, --compile, --batch-size -1, and what is said about memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from utils.checkpoint import load_checkpoint
from utils.core.errors import InputError
from utils.training import autobatch
from utils.training.session import Session

Training = Callable[..., Session]
LAST = torch.channels_last


def test_a_cpu_trains_and_averages_channels_last_and_saves_as_ever(tmp_path: Path, training: Training) -> None:
    seen: list[bool] = []

    def hook(session: Session) -> None:
        session.model.model[0].register_forward_hook(
            lambda module, inputs, output: seen.append(
                inputs[0].is_contiguous(memory_format=LAST) and output.is_contiguous(memory_format=LAST)
            )
        )

    session = training(tmp_path, hook, cfg="yolov5n_dynamic.yaml")
    assert seen == [True]
    momentum = session.optimizer.state[session.model.model[1].conv.weight]["momentum_buffer"]
    for tensor in (session.model.model[1].conv.weight, session.ema.model.model[1].conv.weight, momentum):
        assert tensor.is_contiguous(memory_format=LAST)
    saved = load_checkpoint(session.saver.last)
    assert all(tensor.is_contiguous() for tensor in saved.model.values())


def test_compile_has_the_loop_call_the_compiled_model(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def compile(model: Any, **settings: Any) -> Any:
        assert settings["dynamic"] is False

        def run(images: torch.Tensor) -> Any:
            calls.append(len(images))
            return model(images)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    session = training(tmp_path, epochs=2, compile=True, noval=True)
    assert calls == [4, 4, 4]  # the check at the start, and the two epochs
    assert not any("orig_mod" in name for name in load_checkpoint(session.saver.last).model)


def test_compile_leaves_a_run_as_it_would_be_without(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model.__call__)
    states = [
        training(tmp_path, epochs=1, compile=wanted, noval=True, files=False).model.state_dict()
        for wanted in (False, True)
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_the_batch_size_found_is_recorded_so_that_a_resumed_run_keeps_it(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autobatch, "training_memory", lambda model, batch, *_: batch * 100.0)
    monkeypatch.setattr(autobatch, "free_memory", lambda device: 300 * 2**20)
    session = training(tmp_path, batch_size=-1, epochs=1, noval=True, save_steps=1)
    assert session.options.batch_size == 2  # 0.7 * 300 MiB at 100 MiB an image
    assert len(session.loader) == 2
    assert yaml.safe_load((session.save_dir / "opt.yaml").read_text())["batch_size"] == 2
    assert load_checkpoint(session.saver.last).options["batch_size"] == 2


def test_no_room_for_a_single_image_ends_before_a_run_folder_is_made(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autobatch, "training_memory", lambda model, batch, *_: batch * 100.0)
    monkeypatch.setattr(autobatch, "free_memory", lambda device: 100 * 2**20)
    with pytest.raises(InputError, match=r"1 image needs 0.10 GiB, and 0.07 GiB may be used"):
        training(tmp_path / "runs", batch_size=-1)
    assert not (tmp_path / "runs").exists()


def test_the_peak_of_memory_is_told_at_the_end(
    tmp_path: Path, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        training(tmp_path, noval=True, files=False)
    assert sum(message.startswith("peak memory: ") for message in caplog.messages) == 1
