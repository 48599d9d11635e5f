"""A pickled model for the official code: what is in it, by name."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.user_modules import load_modules
from models.yolo import Model
from utils.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from utils.checkpoint.legacy import _resolve
from utils.config.options import ExportOptions
from utils.export import export_checkpoint

PARSER = {"i", "f", "type", "np"}  # what the official parser notes on every layer
# What differs between any two official files: the size of the last image, the training, the release of torch.
OF_A_RUN = {"grid", "anchor_grid", "hyp", "class_weights", "yaml_file", "recompute_scale_factor", "stride", "inplace"}


def globals_of(file: Path) -> set[str]:
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return {
            str(arg).replace(" ", ".") for op, arg, _ in pickletools.genops(archive.read(name)) if op.name == "GLOBAL"
        }


def content_of(file: Path) -> dict[str, Any]:
    """The file as it is, its classes as inert stand-ins."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    with torch.serialization.safe_globals(_resolve(file, names)):
        return dict(torch.load(file, weights_only=True))


def own_attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}


def test_the_file_reads_back_as_an_official_one_and_computes_the_same(
    exported: Callable[..., list[Any]], tiny: Callable[[str], Path]
) -> None:
    row = exported("static", include=("yolov5",))[1]
    assert row.made, row.note
    assert row.path.name == "static_yolov5.pt"
    assert row.worst == 0
    model, checkpoint = load_model(row.path)
    expected, _ = load_model(tiny("static"))
    assert (checkpoint.origin, checkpoint.names) == ("official", ["ant", "bee", "甲虫"])
    assert checkpoint.recorded_size("") == (64, 64)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(x)[0], expected(x)[0])


def test_the_pickle_names_classes_of_yolov5_and_torch_only(exported: Callable[..., list[Any]]) -> None:
    file = exported("static", include=("yolov5",))[1].path
    assert globals_of(file) == {
        "models.yolo.Model", "models.yolo.Detect", "models.common.Conv", "collections.OrderedDict", "__builtin__.set",
        "torch.nn.modules.container.Sequential", "torch.nn.modules.container.ModuleList",
        "torch.nn.modules.conv.Conv2d", "torch.nn.modules.batchnorm.BatchNorm2d", "torch.nn.modules.activation.SiLU",
        "torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "torch.LongStorage",
    }  # fmt: skip


def test_layers_carry_what_the_official_forward_pass_reads(exported: Callable[..., list[Any]]) -> None:
    content = content_of(exported("static", include=("yolov5",), half=True)[1].path)
    assert {"epoch", "best_fitness", "model", "ema", "updates", "optimizer", "wandb_id", "date"} <= content.keys()
    assert content["ema"] is None
    model = content["model"]
    assert (model.nc, model.names, model.save, model.inplace) == (3, ["ant", "bee", "甲虫"], [3, 4], True)
    assert model.yaml.keys() == {"nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "ch"}
    assert model.stride.tolist() == [8, 16]
    assert not model.training
    first, head = model.model[0], model.model[-1]
    assert own_attributes(first) == {"i": 0, "f": -1, "type": "models.common.Conv", "np": 8 * 3 * 36 + 16}
    assert own_attributes(head).keys() == PARSER | {
        "nc", "no", "nl", "na", "grid", "anchor_grid", "inplace", "stride"
    }  # fmt: skip
    assert (head.f, head.no, head.nl, head.na) == ([3, 4], 8, 2, 2)
    assert [grid.shape for grid in head.grid] == [(1,), (1,)]
    assert all(p.dtype == torch.float16 and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", ["dynamic", "condconv", "odconv"])
def test_dynamic_layers_are_named_with_the_way_out(exported: Callable[..., list[Any]], kind: str) -> None:
    row = exported(kind, include=("yolov5",))[1]
    assert not row.made
    assert "no dynamic layers (model.2" in row.note
    assert "--include static --data my.yaml" in row.note


@pytest.fixture
def layer_of_ones_own(tmp_path: Path) -> Iterator[str]:
    from models.registry import LAYERS

    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\nfrom models.registry import register\n\n"
        "@register('same')\nclass Twice(nn.Module):\n    def forward(self, x):\n        return 2 * x\n",
        encoding="utf-8",
    )
    yield str(file)
    LAYERS.pop("Twice", None)


def test_a_layer_that_yolov5_has_not_is_named(layer_of_ones_own: str, tmp_path: Path) -> None:
    load_modules([layer_of_ones_own])
    made = Model("yolov5n.yaml", nc=2)
    made.yaml["backbone"][-1] = [-1, 1, "Twice", []]
    model = Model(made.yaml, nc=2)
    state = dict(model.state_dict())
    save_checkpoint(
        tmp_path / "own.pt",
        Checkpoint(model_yaml=model.yaml, nc=2, names=["a", "b"], stride=model.stride.tolist(), model=state),
    )  # fmt: skip
    options = ExportOptions(include=("yolov5",), imgsz=(64,))
    row = export_checkpoint(tmp_path / "own.pt", options, torch.device("cpu"))[1]
    assert row.note == "not known of YOLOv5's own files: model.9 Twice"


@pytest.mark.parametrize("name", ["yolov5n-v6.1-2cls.pt", "yolov5n-v7-4cls.pt"])
def test_an_official_file_comes_out_as_it_went_in(shared_weights: Path, name: str, tmp_path: Path) -> None:
    source = shared_weights / name
    options = ExportOptions(include=("yolov5",), imgsz=(64,), half=True, output=str(tmp_path))
    row = export_checkpoint(source, options, torch.device("cpu"))[1]
    assert row.made, row.note
    official, ours = content_of(source), content_of(row.path)
    assert official.keys() <= ours.keys()
    modules, theirs_by_path = (
        dict(content["model"].named_modules(remove_duplicate=False)) for content in (ours, official)
    )  # v7 has one activation for all layers
    assert [*modules] == [*theirs_by_path]
    kinds = globals_of(source) - {"torch.DoubleStorage", "torch.FloatStorage"}
    assert {kind.replace("DetectionModel", "Model") for kind in kinds} == globals_of(row.path) - {"torch.FloatStorage"}
    for path, theirs in theirs_by_path.items():
        mine = modules[path]
        assert type(mine).__name__ == type(theirs).__name__.replace("DetectionModel", "Model")
        assert own_attributes(mine).keys() == own_attributes(theirs).keys(), path
        for attribute in own_attributes(theirs).keys() - OF_A_RUN - {"names"}:
            assert getattr(mine, attribute) == getattr(theirs, attribute), f"{path}.{attribute}"
    state = ours["model"].state_dict()
    assert [*state] == [*official["model"].state_dict()]
    assert all(_same(value, state[key]) for key, value in official["model"].state_dict().items())
    assert load_checkpoint(row.path).names == load_checkpoint(source).names


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
