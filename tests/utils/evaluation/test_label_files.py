"""Detections of a validation as label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.evaluation import ImageResult
from utils.evaluation.observers import LabelFiles


def found(path: str, hybrid: torch.Tensor | None = None) -> ImageResult:
    boxes = torch.tensor([[10.0, 10, 30, 20, 0.5, 1]])
    return ImageResult(path, (100, 200), boxes, torch.zeros(0, 5), np.zeros((1, 10), bool), hybrid)


@pytest.mark.parametrize(("with_conf", "text"), [(False, "1 0.1 0.15 0.1 0.1\n"), (True, "1 0.1 0.15 0.1 0.1 0.5\n")])
def test_a_line_is_class_box_and_confidence_if_asked(tmp_path: Path, with_conf: bool, text: str) -> None:
    LabelFiles(tmp_path / "labels", with_conf).on_image(found("some/where/a.jpg"))
    assert (tmp_path / "labels/a.txt").read_text(encoding="utf-8") == text


def test_images_of_one_name_keep_their_files_apart(tmp_path: Path) -> None:
    files = LabelFiles(tmp_path, with_conf=False)
    for path in ("x/a.jpg", "y/a.jpg", "z/y/a.png", "x/a.jpg"):
        files.on_image(found(path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "y_a.txt", "z_y_a.txt"]


def test_where_labels_are_mixed_in_they_are_written_instead(tmp_path: Path) -> None:
    both = torch.tensor([[0.0, 0, 20, 20, 1.0, 0], [10, 10, 30, 20, 0.5, 1]])
    LabelFiles(tmp_path, with_conf=True).on_image(found("a.jpg", both))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8").splitlines()[0] == "0 0.05 0.1 0.1 0.2 1"
