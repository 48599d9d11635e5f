"""A dynamic model collapsed to a static one with its mean attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.dynamic_convolution import DynamicConvolution
from models.yolo import Model
from utils.checkpoint import load_model
from utils.config.options import ExportOptions
from utils.export.export_job import ExportJob
from utils.export.static_checkpoint import collapse, static_yaml


@pytest.fixture(scope="module")
def ants(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("ants"), nc=3, names=("ant", "bee", "甲虫"))


@pytest.mark.parametrize("kind", ["dynamic", "condconv", "odconv"])
def test_the_static_file_has_no_dynamic_layers_and_its_cost_is_told(
    exported: Callable[..., list[Any]], ants: Path, kind: str
) -> None:
    source, row = exported(kind, include=("static",), data=str(ants))
    assert row.made, row.note
    model, checkpoint = load_model(row.path)
    assert not any(isinstance(module, DynamicConvolution) for module in model.modules())
    assert checkpoint.names == ["ant", "bee", "甲虫"]
    assert "mean attention of 4 images" in row.note
    assert source.map is not None and row.map is not None


@pytest.mark.parametrize("kind", ["dynamic", "condconv", "odconv"])
@torch.no_grad()
def test_a_model_that_looks_the_same_at_every_image_loses_nothing(
    tiny: Callable[[str], Path], ants: Path, kind: str
) -> None:
    model, _ = load_model(tiny(kind))
    for layer in model.modules():
        if isinstance(layer, DynamicConvolution):
            layer.start_neutral()
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
    job = ExportJob(model, ExportOptions(data=str(ants), batch_size=2), (64, 64), Path("unused"))
    static, seen = collapse(job)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(static(images)[0], model(images)[0], rtol=1e-3, atol=1e-2)
    assert seen == 4


def test_every_dynamic_yaml_has_a_static_counterpart() -> None:
    for name in ("yolov5n_dynamic", "yolov5n_dynamic_all", "yolov5n_odconv_head"):
        model = Model(static_yaml(Model(f"{name}.yaml", nc=2)), nc=2)
        assert sum(p.numel() for p in model.parameters()) == sum(
            p.numel() for p in Model("yolov5n.yaml", nc=2).parameters()
        )


def test_a_static_model_and_a_missing_data_set_are_named(exported: Callable[..., list[Any]]) -> None:
    assert exported("static", include=("static",))[1].note == "the model has no dynamic layers"
    assert "--data" in exported("dynamic", include=("static",))[1].note
