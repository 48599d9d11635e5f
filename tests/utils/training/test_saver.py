"""Checkpoints on a disk that is full for a while."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import Checkpoint, load_checkpoint
from utils.config.options import TrainOptions
from utils.config.train_slices import SaveOptions
from utils.training import saver
from utils.training.saver import Saver, keep_resumable, remove_drafts, resume_command


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint(model_yaml={}, nc=1, names=["a"], stride=[8.0], model={"w": torch.tensor([value])}, optimizer={})


def saver_in(folder: Path) -> Saver:
    return Saver(folder, SaveOptions.of(TrainOptions()), {})


def value_in(path: Path) -> float:
    return float(load_checkpoint(path).model["w"])


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Append to it, and the disk is full; clear it, and there is room."""
    state: list[bool] = []

    def write(path: Path, content: bytes) -> None:
        if state:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("utils.checkpoint.format.write_atomic", write)
    monkeypatch.setattr(saver, "write_atomic", write)
    return state


def test_a_full_disk_leaves_the_old_file_and_a_warning(
    tmp_path: Path, full: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    last, writer = tmp_path / "last.pt", saver_in(tmp_path)
    assert writer.write(last, checkpoint(1))
    full.append(True)
    assert not writer.write(last, checkpoint(2))
    assert value_in(last) == 1
    assert f"{last} could not be written (No space left on device); the older file is undamaged" in caplog.text


def test_what_was_not_written_is_tried_again_as_it_was_then(tmp_path: Path, full: list[bool]) -> None:
    best, writer, content = tmp_path / "best.pt", saver_in(tmp_path), checkpoint(3)
    full.append(True)
    writer.write(best, content)
    content.model["w"].fill_(4)  # training goes on
    assert not writer.retry()
    full.clear()
    assert writer.retry()
    assert value_in(best) == 3 and not writer.unwritten


def test_a_newer_checkpoint_replaces_one_that_waits(tmp_path: Path, full: list[bool]) -> None:
    last, writer = tmp_path / "last.pt", saver_in(tmp_path)
    full.append(True)
    writer.write(last, checkpoint(1))
    full.clear()
    assert not writer.retry(last)  # left to the newer one
    assert writer.write(last, checkpoint(2)) and writer.retry()
    assert value_in(last) == 2


def test_without_room_a_finished_run_keeps_its_file_and_says_so(
    tmp_path: Path, full: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    last = tmp_path / "last.pt"
    saver_in(tmp_path).write(last, checkpoint(1))
    full.append(True)
    keep_resumable(last)
    saver.strip(last)
    assert load_checkpoint(last).resumable
    assert "this run cannot be extended" in caplog.text and "stays as large as it is" in caplog.text


@pytest.mark.parametrize(("name", "shown"), [("exp", "exp"), ("my run", "'my run")])
def test_the_command_to_go_on_can_be_pasted(name: str, shown: str) -> None:
    model_yaml: dict[str, Any] = {}
    assert resume_command(Path(name) / "last.pt", model_yaml).startswith(f"python train.py --resume {shown}")


def test_drafts_of_killed_processes_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.pt.12.34.tmp", "last.pt", ".best.pt", "notes.tmp"):
        (tmp_path / name).touch()
    remove_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", ".best.pt", "notes.tmp"}
