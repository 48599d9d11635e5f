"""``utils.general``: environment of a script, checks without a network, the record of a search, a second stage."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import utils.general as general


class Reddish(nn.Module):
    """Class 1 where an image is red in its middle, else class 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (3, 224, 224) and x.max() <= 1
        red = x[:, 0, 112, 112]
        return torch.stack([1 - red, red], dim=1)


def test_a_classifier_confirms_detections_of_its_class_in_pixels_of_the_image() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 20:40] = (0, 0, 255)
    rows = torch.tensor([[10.0, 20, 20, 30, 0.9, 1], [60, 20, 70, 30, 0.8, 1]])  # of an image at half the size
    empty = torch.zeros(0, 6)
    first, second, third = general.apply_classifier(
        [rows, empty, None], Reddish(), torch.zeros(3, 3, 50, 100), [image] * 3
    )
    assert first is not None and first.tolist() == [[20, 40, 40, 60, pytest.approx(0.9), 1]]
    assert second is empty and third is None


def test_where_a_script_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLAB_GPU", raising=False)
    assert not general.is_colab()
    assert general.is_docker() in (True, False)
    monkeypatch.setenv("COLAB_GPU", "1")
    assert general.is_colab()


def test_an_error_is_logged_in_place_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    @general.try_except
    def divide(a: int, b: int) -> float:
        return a / b

    assert divide(1, 2) == 0.5 and divide(1, 0) is None


def test_texts() -> None:
    assert general.clean_str("a?b=c&d") == "a_b_c_d"
    assert general.url2file("https://host/a%20b.txt?auth=1") == "a b.txt"
    assert general.emojis("ok \U0001f680").startswith("ok ")
    assert general.methods(Reddish())[:1] and "forward" in general.methods(Reddish)


def test_sizes_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 500_000)
    assert general.file_size(tmp_path) == general.file_size(tmp_path / "a") == 0.5
    assert general.file_size(tmp_path / "none") == 0


def test_a_checkout_behind_its_branch_is_told_without_fetching(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*words: str) -> None:
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        subprocess.run(
            ["git", *settings, *words], check=True, capture_output=True, env={**os.environ, "HOME": str(tmp_path)}
        )

    assert general.check_git_status(tmp_path / "none") == 0
    git("init", str(tmp_path / "one"))
    for number in range(2):
        git("-C", str(tmp_path / "one"), "commit", "--allow-empty", "-m", str(number))
    git("clone", str(tmp_path / "one"), str(tmp_path / "two"))
    assert general.check_git_status(tmp_path / "two") == 0
    git("-C", str(tmp_path / "two"), "reset", "--hard", "HEAD~1")
    assert general.check_git_status(tmp_path / "two") == 1
