"""Whose threads compute an exported file, and whose memory its outputs are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from utils.inference.backends import DetectMultiBackend

pytest.importorskip("onnx")
Exported = Callable[..., list[Any]]


@pytest.mark.parametrize(("kind", "own"), [("onnx", True), ("openvino", True), ("torchscript", False)])
def test_an_exported_file_knows_whose_threads_compute_it(exported: Exported, kind: str, own: bool) -> None:
    if kind != "torchscript":
        pytest.importorskip({"onnx": "onnxruntime"}.get(kind, kind))
    row = exported("static", include=(kind,))[1]
    assert row.made, row.note
    assert DetectMultiBackend(row.path, trust=True).own_threads is own


def test_the_output_of_an_openvino_run_is_not_overwritten_by_the_next(exported: Exported) -> None:
    pytest.importorskip("openvino")
    row = exported("static", include=("openvino",))[1]
    assert row.made, row.note
    model = DetectMultiBackend(row.path)
    assert model.imgsz is not None
    size = model.imgsz
    first = model(torch.zeros(1, 3, *size))
    before = first.clone()
    model(torch.rand(1, 3, *size))
    assert torch.equal(first, before)
