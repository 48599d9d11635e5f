"""Whose threads compute an exported file, and whose memory its outputs are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from utils.inference import use_half
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends.openvino import _core as shared_core

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


def test_half_is_bfloat16_in_openvino_where_the_processor_has_it(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = pytest.importorskip("openvino")
    row = exported("static", include=("openvino",))[1]
    assert row.made, row.note
    cpu = torch.device("cpu")
    backend = open_exported(row.path, cpu)
    assert backend.imgsz is not None
    images = torch.rand(1, 3, *backend.imgsz)
    exact = backend(images)[0]
    caplog.set_level("INFO")
    assert not use_half(backend, cpu)  # model and images stay as they are
    if "BF16" in shared_core(openvino).get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert "--half: OpenVINO computes in bfloat16" in caplog.text
        rounded = backend(images)[0]
        assert not torch.equal(rounded, exact)
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.5)
    monkeypatch.setattr(backend, "use_bfloat16", lambda: False)
    assert not use_half(backend, cpu)
    assert "--half has no effect: this processor has no bfloat16; running in float32" in caplog.text
