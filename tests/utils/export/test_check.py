"""Files of models that magnify rounding are kept, files that compute something else are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.dynamic import set_temperature
from models.yolo import Model
from utils.checkpoint import load_checkpoint, load_model, save_checkpoint
from utils.config.options import ExportOptions
from utils.export import ExportResult, export_checkpoint
from utils.export.export_job import ExportJob

Change = Callable[[Model], None]


@pytest.fixture
def magnifying(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """The tiny dynamic model with two large terms in its head that cancel, so that rounding is most of what is left."""
    checkpoint = load_checkpoint(tiny("dynamic"))
    for name, tensor in checkpoint.model.items():
        if name.startswith("model.4.") and tensor.dim():
            tensor[1] = tensor[0]
    checkpoint.model["model.5.m.1.weight"][:, :2] += torch.tensor([2e4, -2e4]).view(1, 2, 1, 1)
    save_checkpoint(tmp_path / "large.pt", checkpoint)
    return tmp_path / "large.pt"


@pytest.fixture
def export_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExportResult]:
    """Export a model whose file is made of a changed copy, as a wrong exporter would."""

    def run(weights: Path, change: Change, **given: Any) -> ExportResult:
        original = ExportJob.network

        def network(job: ExportJob, *how: Any) -> Any:
            model = copy.deepcopy(job.model)
            with torch.no_grad():
                change(model)
            return original(replace(job, model=model), *how)

        usual = {"include": ("torchscript",), "imgsz": (64,), "output": str(tmp_path / "out")}
        with monkeypatch.context() as patch:
            patch.setattr(ExportJob, "network", network)
            return export_checkpoint(weights, ExportOptions(**{**usual, **given}), torch.device("cpu"))[1]

    return run


@pytest.mark.parametrize(
    ("name", "dynamic"), [("onnx", False), ("onnx", True), ("openvino", True), ("torchscript", True)]
)
def test_a_correct_file_of_a_model_that_magnifies_rounding_is_kept(
    magnifying: Path, export_changed: Callable[..., ExportResult], name: str, dynamic: bool
) -> None:
    for package in {"onnx": ("onnxruntime",), "openvino": ("openvino", "onnx")}.get(name, ()):
        pytest.importorskip(package)
    row = export_changed(magnifying, lambda _: None, include=(name,), dynamic=dynamic)
    assert row.made, row.note
    assert 1e-4 < row.limit <= 0.05
    assert row.worst <= row.limit


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and parameter.dim() > 1
    }


@pytest.mark.parametrize("magnified", [False, True])
def test_a_layer_whose_weights_are_one_percent_off_is_found_in_every_place(
    magnifying: Path, tiny: Callable[[str], Path], export_changed: Callable[..., ExportResult], magnified: bool
) -> None:
    weights = magnifying if magnified else tiny("dynamic")
    kept = []
    for name in weights_of(load_model(weights)[0]):
        row = export_changed(weights, lambda model, name=name: weights_of(model)[name].mul_(1.01))
        assert row.made or "differs from PyTorch by" in row.note
        kept += [name] if row.made else []
    assert [name for name in kept if "attention" not in name] == []  # a softmax of nearly the same kernels hides it


def other_activation(model: Model) -> None:
    model.model[1].act = nn.Hardswish()


def swapped_classes(model: Model) -> None:
    for conv in model.head.m:
        order = list(range(conv.out_channels))
        for anchor in range(model.head.na):
            first = anchor * model.head.no + 5
            order[first], order[first + 1] = order[first + 1], order[first]
        conv.weight.copy_(conv.weight[order])
        conv.bias.copy_(conv.bias[order])


def other_temperature(model: Model) -> None:
    set_temperature(model, 1.0)


@pytest.mark.parametrize("change", [other_activation, swapped_classes, other_temperature])
@pytest.mark.parametrize("magnified", [False, True])
def test_another_activation_order_of_classes_or_temperature_is_found(
    magnifying: Path,
    tiny: Callable[[str], Path],
    export_changed: Callable[..., ExportResult],
    magnified: bool,
    change: Change,
) -> None:
    row = export_changed(magnifying if magnified else tiny("dynamic"), change)
    assert not row.made
    assert "differs from PyTorch by" in row.note and "allowed is" in row.note
