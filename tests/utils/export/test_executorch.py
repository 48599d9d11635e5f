"""ExecuTorch programs: made and equal to PyTorch where the package is there; what is told where it is not."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.errors import InputError
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends.metadata import Metadata

CPU = torch.device("cpu")
Exported = Callable[..., list[Any]]
needs_package = pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="no executorch")


@needs_package
@pytest.mark.parametrize(
    ("kind", "form"), [("static", "auto"), ("dynamic", "auto"), ("dynamic", "M"), ("condconv", "auto"), ("odconv", "M")]
)
def test_a_program_with_free_axes_equals_pytorch_as_far_as_they_go(
    exported: Exported, tiny: Callable[[str], Path], kind: str, form: str
) -> None:
    row = exported(kind, include=("executorch",), dynamic=True, dynamic_form=form)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend, (model, _) = DetectMultiBackend(row.path), load_model(tiny(kind))
    assert (backend.executorch, backend.names, backend.stride) == (True, ["ant", "bee", "甲虫"], 16)
    assert backend.backend.info.temperature == (2.0 if kind in ("dynamic", "odconv") else None)
    for shape in [(1, 3, 64, 64), (3, 3, 32, 64), (19, 3, 64, 32)]:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(backend(images), model(images)[0], rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="takes pictures up to 64 x 64, got a height of 80"):
        backend(torch.rand(1, 3, 80, 64))


@needs_package
def test_a_program_of_fixed_sizes_takes_any_number_of_pictures(exported: Exported) -> None:
    row = exported("dynamic", include=("executorch",), batch_size=2)[1]
    assert row.made, row.note
    backend = DetectMultiBackend(row.path)
    assert backend(torch.rand(5, 3, 64, 64)).shape[0] == 5
    assert backend.fixed_hw == (64, 64)


@needs_package
def test_a_program_in_half_precision_takes_such_pictures(exported: Exported) -> None:
    row = exported("dynamic", include=("executorch",), half=True)[1]
    assert row.made, row.note
    assert 1e-7 < row.worst < 0.05
    assert DetectMultiBackend(row.path).fp16


@needs_package
def test_without_xnnpack_the_portable_operators_do(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.export.executorch.partitioners", lambda: None)
    row = exported("dynamic", include=("executorch",))[1]
    assert row.made, row.note
    assert (row.worst < 1e-4, row.note) == (True, "without XNNPACK, so slow")


@needs_package
@pytest.mark.parametrize("content", [b"", b"\x80\x04 nothing of the kind", b"PK\x03\x04 nor this" * 100])
def test_a_corrupt_file_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mit Leerzeichen ü.pte"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"ü\.pte: cannot be read as an ExecuTorch program: ") as caught:
        DetectMultiBackend(file)
    assert "\n" not in str(caught.value)


def test_the_missing_package_is_named(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "executorch" else known(name, *a))
    row = exported("static", include=("executorch",))[1]
    assert (row.impossible, row.note) == (True, "package executorch is missing: pip install executorch")
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    (tmp_path / "a.pte").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.pte needs the package executorch: pip install executorch"):
        DetectMultiBackend(tmp_path / "a.pte")


class Method:
    """Stands in for a loaded method: ``answer`` of the inputs, and the sizes it declares."""

    def __init__(self, answer: Callable[[Any], Any], images: list[int], boxes: list[int]) -> None:
        def sizes(shape: list[int]) -> Callable[[int], Any]:
            return lambda index: types.SimpleNamespace(sizes=lambda: tuple(shape))

        self.execute = lambda inputs: [answer(*inputs)]
        self.metadata = types.SimpleNamespace(input_tensor_meta=sizes(images), output_tensor_meta=sizes(boxes))


def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, methods: dict[str, Method]) -> Any:
    """The backend of a file that a stand-in for the runtime reads as ``methods``."""
    program = types.SimpleNamespace(method_names=set(methods), load_method=methods.__getitem__)
    runtime: Any = types.ModuleType("executorch.runtime")
    runtime.Runtime = types.SimpleNamespace(get=lambda: types.SimpleNamespace(load_program=lambda content: program))
    monkeypatch.setitem(sys.modules, "executorch", types.ModuleType("executorch"))
    monkeypatch.setitem(sys.modules, "executorch.runtime", runtime)
    (tmp_path / "a.pte").write_bytes(b"content")
    return open_exported(tmp_path / "a.pte", CPU)


def test_pictures_come_in_as_many_calls_as_the_end_of_the_free_axes_makes_needful(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = Metadata(names=("ant", "bee"), dynamic=("batch", "height", "width"), imgsz=(64, 64))
    calls = []

    def answer(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return images.mean((1, 2, 3)).view(-1, 1, 1).expand(-1, 4, 7)

    methods = {
        "forward": Method(answer, [8, 3, 64, 96], [8, 4, 7]),
        "about": Method(lambda: json.dumps(info.to_plain()), [1, 1, 1, 1], [1]),
    }
    backend = opened(monkeypatch, tmp_path, methods)
    images = torch.rand(19, 3, 32, 96)
    torch.testing.assert_close(backend(images)[0][:, 0, 0], images.mean((1, 2, 3)))
    assert (calls, backend.info) == ([8, 8, 3], info)
    with pytest.raises(InputError, match="takes pictures up to 64 x 96, got a height of 96; give a smaller --imgsz"):
        backend(torch.rand(1, 3, 96, 96))


def test_a_program_of_others_has_classes_without_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = opened(monkeypatch, tmp_path, {"forward": Method(lambda x: x, [2, 3, 64, 96], [2, 10, 7])})
    assert (backend.names, backend.fixed_hw, backend.info.batch) == (["class0", "class1"], (64, 96), 2)
