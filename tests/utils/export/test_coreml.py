"""Core ML packages: what they declare, and what is reported where nothing runs them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import export
from utils.config.options import ExportOptions
from utils.core.errors import InputError
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
def test_elsewhere_a_package_is_made_and_reported_as_not_compared(exported: Exported, kind: str, free: bool) -> None:
    tools = pytest.importorskip("coremltools")
    row = exported(kind, include=("coreml",), dynamic=free)[1]
    assert row.made, row.note
    assert (row.worst, row.ms, row.ran) == (None, None, False)
    assert row.note == "not compared with PyTorch: Core ML runs on macOS only"
    spec = tools.models.MLModel(str(row.path), skip_model_load=True).get_spec()
    assert [port.name for port in spec.description.input] == ["images"]
    assert [port.name for port in spec.description.output] == ["boxes"]
    info = from_text(dict(spec.description.metadata.userDefined), row.path)
    assert (info.names, info.stride, info.form) == (("ant", "bee", "甲虫"), 16, "M")
    assert info.dynamic == (("batch", "height", "width") if free else ())
    taken = spec.description.input[0].type.multiArrayType
    assert list(taken.shape) == [1, 3, 64, 64]
    limits = [(axis.lowerBound, axis.upperBound) for axis in taken.shapeRange.sizeRanges]
    assert limits == ([(1, 256), (3, 3), (16, 4096), (16, 4096)] if free else [])


@pytest.mark.usefixtures("needs_coreml", "on_linux")
def test_half_precision_makes_the_package_smaller(exported: Exported) -> None:
    full = exported("odconv", include=("coreml",))[1].megabytes
    half = exported("odconv", include=("coreml",), half=True)[1]
    assert half.made, half.note
    assert half.megabytes < 0.9 * full


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
    proto = types.SimpleNamespace(Model_pb2=types.SimpleNamespace(Model=None))
    tools = types.SimpleNamespace(models=types.SimpleNamespace(MLModel=model), proto=proto)
    monkeypatch.setitem(sys.modules, "coremltools", tools)
    monkeypatch.setattr(backend, "checked_copy", lambda package, *_: package)


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
