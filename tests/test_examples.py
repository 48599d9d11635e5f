"""The example scripts, run as their users run them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# A program that imports torch fails at once.
WITHOUT_TORCH = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"  # noqa: E501


@pytest.fixture(scope="module")
def found_by_torch(eager_weights: Path) -> Callable[[np.ndarray], torch.Tensor]:
    from utils.checkpoint import load_model
    from utils.inference import Predictor

    predictor = Predictor(load_model(eager_weights)[0], torch.device("cpu"), 96, conf=0.25)
    predictor.whole_canvas = True
    return lambda image: predictor(image).boxes


def test_the_onnx_script_needs_no_torch_and_finds_what_detect_finds(
    eager_weights: Path, tmp_path: Path, found_by_torch: Callable[[np.ndarray], torch.Tensor]
) -> None:
    pytest.importorskip("onnxruntime")
    from utils.config.options import ExportOptions
    from utils.export import export_checkpoint

    options: dict[str, Any] = {
        "include": ("onnx",),
        "nms": True,
        "topk_all": 9,
        "imgsz": (96,),
        "output": str(tmp_path),
    }
    row = export_checkpoint(eager_weights, ExportOptions(**options), torch.device("cpu"))[1]
    assert row.made, row.note
    image = np.random.default_rng(0).integers(0, 255, (40, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "examples/onnx_picture.py"), str(row.path)]
    done = subprocess.run([*command, str(tmp_path / "a.png")], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    expected = found_by_torch(image)[:9]
    assert len(lines) == len(expected) > 2
    assert {words[0] for words in lines} <= {"ant", "bee"}
    boxes = np.array([[float(word) for word in words[1:]] for words in lines])  # [k, 5] confidence, xyxy
    for *xyxy, confidence, _ in expected.tolist():  # in whatever order: some are nearly as sure as others
        assert (np.abs(boxes - [confidence, *xyxy]) < [0.002, 0.2, 0.2, 0.2, 0.2]).all(1).any()
