"""Core ML packages: made, their graph equal to PyTorch, and honest where nothing runs them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import export
from utils.checkpoint import load_model
from utils.config.options import ExportOptions
from utils.core.errors import InputError
from utils.export import coreml as exporter
from utils.export.mil import OPERATORS, MilGraph
from utils.inference.backends import DetectMultiBackend
from utils.inference.backends import coreml as backend
from utils.inference.backends.metadata import Metadata, from_text

Exported = Callable[..., list[Any]]


@pytest.fixture
def needs_coreml() -> Any:
    return pytest.importorskip("coremltools")


@pytest.fixture
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")


@pytest.mark.usefixtures("needs_coreml", "on_linux")
@pytest.mark.parametrize(("kind", "free"), [("dynamic", True), ("condconv", False), ("odconv", False)])
def test_a_package_is_made_and_its_graph_compared_though_nothing_runs_it(
    exported: Exported, kind: str, free: bool
) -> None:
    row = exported(kind, include=("coreml",), dynamic=free)[1]
    assert row.made, row.note
    assert (row.worst, row.ms, row.ran) == (None, None, False)
    assert row.note.startswith(
        "Core ML runs on macOS only, so it was not run; its graph, computed by PyTorch, differs by"
    )
    assert float(row.note.rpartition(" ")[2]) < 1e-4
    spec = exporter.read_spec(row.path)
    info = from_text(dict(spec.description.metadata.userDefined), row.path)
    assert (info.names, info.stride, info.form) == (("ant", "bee", "甲虫"), 16, "M")
    assert info.dynamic == (("batch", "height", "width") if free else ())
    taken = spec.description.input[0].type.multiArrayType
    assert list(taken.shape) == [1, 3, 64, 64]
    limits = [(axis.lowerBound, axis.upperBound) for axis in taken.shapeRange.sizeRanges]
    assert limits == ([(1, 256), (3, 3), (16, 4096), (16, 4096)] if free else [])


@pytest.mark.usefixtures("needs_coreml", "on_linux")
@pytest.mark.parametrize("form", ["A1", "B"])
def test_other_forms_can_be_had_at_fixed_sizes(exported: Exported, form: str) -> None:
    row = exported("dynamic", include=("coreml",), dynamic_form=form)[1]
    assert row.made, row.note
    assert "differs by" in row.note


@pytest.mark.usefixtures("needs_coreml", "on_linux")
def test_half_precision_makes_the_package_smaller(exported: Exported) -> None:
    full = exported("odconv", include=("coreml",))[1].megabytes
    half = exported("odconv", include=("coreml",), half=True)[1]
    assert half.made, half.note
    assert half.megabytes < 0.9 * full


@pytest.mark.usefixtures("needs_coreml", "on_linux")
def test_a_graph_that_computes_something_else_is_not_kept(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    original = OPERATORS["sigmoid"]
    monkeypatch.setitem(OPERATORS, "sigmoid", lambda x: original(x) * 1.01)
    row = exported("static", include=("coreml",))[1]
    assert not row.made
    assert "its graph differs from PyTorch by" in row.note


@pytest.mark.usefixtures("needs_coreml", "on_linux")
def test_an_operator_that_pytorch_does_not_stand_in_for_is_named(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(OPERATORS, "sigmoid")
    row = exported("static", include=("coreml",))[1]
    assert row.made, row.note
    assert row.note == "Core ML runs on macOS only, so it was not run, nor its graph compared (it has sigmoid)"


@pytest.mark.usefixtures("needs_coreml")
def test_where_core_ml_runs_the_file_is_run_like_any_other(
    exported: Exported, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Core ML itself is played by the graph in the file, computed by PyTorch."""
    tools = pytest.importorskip("coremltools")

    def predict(self: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"boxes": MilGraph(Path(self.package_path))(torch.from_numpy(given["images"]))[0].numpy()}

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(tools.models.MLModel, "predict", predict)
    row = exported("dynamic", include=("coreml",))[1]
    assert row.made, row.note
    assert row.worst < 1e-4 and row.ms > 0
    model = DetectMultiBackend(row.path)
    assert (model.coreml, model.names, model.fixed_hw) == (True, ["ant", "bee", "甲虫"], (64, 64))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), load_model(tiny("dynamic"))[0](images)[0], rtol=1e-4, atol=1e-3)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    made = tmp_path / "mit Leerzeichen ü.mlpackage"
    made.mkdir()
    return made


@pytest.mark.usefixtures("on_linux")
def test_elsewhere_the_backend_says_that_it_needs_macos(package: Path) -> None:
    with pytest.raises(InputError, match=r"ü\.mlpackage: Core ML files run on macOS only; on Linux use another format"):
        DetectMultiBackend(package)


class FakeModel:
    """Gives what it is told to be the description, and double its images."""

    text: dict[str, str] | None = None

    def __init__(self, path: str) -> None:
        if self.text is None:
            raise RuntimeError("Error reading protobuf spec\nand a long story")
        self.user_defined_metadata = self.text

    def predict(self, given: dict[str, Any]) -> dict[str, Any]:
        if len(given["images"]) > 3:
            raise RuntimeError("shape is not in the allowed range\nand a long story")
        return {"boxes": given["images"].reshape(len(given["images"]), -1, 8) * 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as a Core ML package: Error reading protobuf spec"),
        ({"names": "['a']"}, "not exported by this program; make it with export.py --include coreml"),
    ],
)
def test_a_corrupt_or_foreign_package_is_one_line(
    package: Path, monkeypatch: pytest.MonkeyPatch, text: dict[str, str] | None, message: str
) -> None:
    play(monkeypatch, text)
    with pytest.raises(InputError, match=message) as caught:
        DetectMultiBackend(package)
    assert "\n" not in str(caught.value)


def test_the_backend_gives_float32_images_under_their_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, Metadata(names=("a", "b", "c"), imgsz=(32, 64), dynamic=("batch",)).to_text())
    images = torch.rand(3, 3, 32, 64)
    model = DetectMultiBackend(package)
    assert torch.equal(model(images), 2 * images.reshape(3, -1, 8))
    with pytest.raises(InputError, match=r"Core ML cannot run it: shape is not in the allowed range$"):
        model(torch.rand(4, 3, 32, 64))


def play(monkeypatch: pytest.MonkeyPatch, text: dict[str, str] | None) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    model = type("MLModel", (FakeModel,), {"text": text})
    monkeypatch.setitem(sys.modules, "coremltools", types.SimpleNamespace(models=types.SimpleNamespace(MLModel=model)))


def test_a_missing_package_is_named_on_macos(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "runs_here", lambda: True)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(InputError, match="needs the package coremltools: pip install coremltools"):
        DetectMultiBackend(package)


@pytest.mark.usefixtures("needs_coreml", "on_linux")
def test_the_script_does_not_advise_to_run_what_does_not_run(
    tiny: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ExportOptions(weights=(str(tiny("static")),), include=("coreml",), imgsz=(64,), output=str(tmp_path))
    with caplog.at_level("INFO"):
        assert export.main(options) == 0
    assert "results are in" in caplog.text
    assert "detect.py" not in caplog.text


def test_operators_of_the_graph_compute_what_they_are_documented_to() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    weight = torch.rand(4, 2, 3, 3)
    for stride, kind in ((1, "same"), (2, "same_lower")):
        y = OPERATORS["conv"](x, weight, strides=(stride, stride), pad_type=kind)
        assert y.shape == (1, 4, -(-3 // stride), 4 // stride)
    custom = OPERATORS["conv"](x, weight, pad_type="custom", pad=(1, 1, 1, 1))
    torch.testing.assert_close(custom, F.conv2d(x, weight, padding=1))
    torch.testing.assert_close(OPERATORS["conv"](x, weight, pad_type="same"), custom)
    pooled = OPERATORS["max_pool"](-x, (3, 3), (1, 1), "custom", (1, 1, 1, 1))
    torch.testing.assert_close(pooled, F.max_pool2d(-x, 3, 1, 1))
    part = OPERATORS["slice_by_index"](
        x, (0, 1, 0, 9), (1, 9, 2, 0), (1, 1, 1, -2), [True, False, False, True], [True] + [False] * 2 + [True],
        [False, True, False, False],
    )  # fmt: skip
    assert torch.equal(part, x[:, 1, 0:2].flip(-1)[..., ::2])
    assert OPERATORS["expand_dims"](x, (0, -1)).shape == (1, 1, 2, 3, 4, 1)
    assert OPERATORS["reshape"](x, (0, -1, 4)).shape == (1, 6, 4)
    assert torch.equal(OPERATORS["gather"](x, torch.tensor([1, 0]), axis=1), x[:, [1, 0]])
    assert [len(part) for part in OPERATORS["split"](x[0, 0], 0, split_sizes=(1, 2))] == [1, 2]
    assert torch.equal(OPERATORS["concat"]([torch.tensor(1), torch.tensor([2, 3])], 0), torch.tensor([1, 2, 3]))
    torch.testing.assert_close(OPERATORS["matmul"](x, x, transpose_y=True), x @ x.mT)
    assert torch.equal(OPERATORS["reduce_mean"](x, (2, 3), True), x.mean((2, 3), keepdim=True))
