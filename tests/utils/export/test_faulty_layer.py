"""A layer that a format does not take is named in one line; what its library prints goes into a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.registry import LAYERS, register
from models.yolo import Model
from utils.checkpoint import Checkpoint, save_checkpoint
from utils.config.options import ExportOptions
from utils.export import ExportResult, export_checkpoint
from utils.export.formats import printed_to


class RowMeans(nn.Module):
    """What older exporters take at a fixed size only."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((None, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pool(x)


class Eigen(nn.Module):
    """What no format takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linalg.eigvals(x[:, :, :2, :2]).real.sum()


@pytest.fixture
def export_with(tmp_path: Path) -> Iterator[Callable[..., ExportResult]]:
    """Export a tiny model with a layer of a given class as its layer 2."""
    for layer in (RowMeans, Eigen):
        register("same")(layer)

    def run(layer: type[nn.Module], name: str, **given: Any) -> ExportResult:
        conv = [[-1, 1, "Conv", [8, 3, 2]]]
        content = {
            "nc": 3, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
            "backbone": [*conv, *conv, [-1, 1, layer.__name__, []], *conv],
            "head": [*conv, [[3, 4], 1, "Detect", ["nc", "anchors"]]],
        }  # fmt: skip
        model = Model(content)
        save_checkpoint(
            tmp_path / "m.pt",
            Checkpoint(
                model_yaml=model.yaml, nc=3, names=["a", "b", "c"], stride=model.stride.tolist(),
                model=dict(model.state_dict()),
            ),
        )  # fmt: skip
        options = ExportOptions(include=(name,), imgsz=(64,), **given)
        return export_checkpoint(tmp_path / "m.pt", options, torch.device("cpu"))[1]

    yield run
    for layer in (RowMeans, Eigen):
        del LAYERS[layer.__name__]


def test_a_layer_that_takes_one_size_only_is_named_with_the_way_out(
    export_with: Callable[..., ExportResult], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    row = export_with(RowMeans, "onnx", dynamic=True)
    assert not row.made
    assert "layer 2 (RowMeans, row [-1, 1, 'RowMeans', []]) cannot be exported with --dynamic; drop that" in row.note
    assert row.note.endswith(f"full text in {tmp_path / 'm.onnx.log'}")
    assert "adaptive" in (tmp_path / "m.onnx.log").read_text(encoding="utf-8")
    assert len("".join(capfd.readouterr()).splitlines()) < 5
    assert export_with(RowMeans, "onnx").made
    assert not (tmp_path / "m.onnx.log").exists()


def test_a_layer_that_a_format_does_not_know_is_named(
    export_with: Callable[..., ExportResult], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    row = export_with(Eigen, "onnx")
    assert "layer 2 (Eigen, row [-1, 1, 'Eigen', []]) cannot be exported; use another operation there" in row.note
    assert "\n" not in row.note and "\n" not in caplog.text.rstrip("\n").rpartition("was not made")[2]


def test_a_failure_that_is_of_no_layer_names_none(
    export_with: Callable[..., ExportResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no way")

    monkeypatch.setattr(torch.jit, "save", fail)
    assert export_with(RowMeans, "torchscript").note.startswith("no way; full text in ")


def test_what_is_printed_goes_into_the_file_from_any_language(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with printed_to(tmp_path / "a.log", verbose=False):
        print("by Python")
        os.write(2, b"by C++\n")
        logging.getLogger("other").warning("by a library")
    with printed_to(tmp_path / "empty.log", verbose=False):
        pass
    print("afterwards")
    assert capfd.readouterr().out == "afterwards\n"
    assert sorted((tmp_path / "a.log").read_text().split("\n")) == ["", "by C++", "by Python"]
    assert not (tmp_path / "empty.log").exists()
