"""ExecuTorch programs: what needs no package; the package itself is used in test_executorch_files.py."""

from __future__ import annotations

import errno
import importlib.machinery
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
from utils.core.errors import InputError
from utils.export.check import Proof
from utils.export.executorch import ExecuTorchExporter, weights_as_they_are
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends.metadata import Metadata

CPU = torch.device("cpu")
Exported = Callable[..., list[Any]]


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
    return open_exported(tmp_path / "a.pte", CPU, trust=True)


def test_images_come_in_as_many_calls_as_the_end_of_the_free_axes_makes_needful(
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
    with pytest.raises(InputError, match="takes images up to 64 x 96, got a height of 96; give a smaller --imgsz"):
        backend(torch.rand(1, 3, 96, 96))


def test_a_program_of_others_has_classes_without_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = opened(monkeypatch, tmp_path, {"forward": Method(lambda x: x, [2, 3, 64, 96], [2, 10, 7])})
    assert (backend.names, backend.fixed_hw, backend.info.batch) == (["class0", "class1"], (64, 96), 2)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a stand-in for the converter is given; a file without XNNPACK is not run. ``given["full"]``: the disk is."""
    told: dict[str, Any] = {}

    def write(stream: Any) -> None:
        stream.write(b"half of a prog")
        if "full" in told:
            raise OSError(errno.ENOSPC, "No space left on device")

    def lower(program: Any, partitioner: Any, constant_methods: dict[str, str]) -> Any:
        told.update(program=program, partitioner=partitioner, about=json.loads(constant_methods["about"]))
        return types.SimpleNamespace(to_executorch=lambda: types.SimpleNamespace(write_to_file=write))

    package, exir = types.ModuleType("executorch"), types.ModuleType("executorch.exir")
    package.__spec__ = importlib.machinery.ModuleSpec("executorch", None)
    exir.to_edge_transform_and_lower = lower  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "executorch", package)
    monkeypatch.setitem(sys.modules, "executorch.exir", exir)
    monkeypatch.setattr("utils.export.executorch.partitioners", lambda: None)
    monkeypatch.setattr(ExecuTorchExporter, "check", lambda *_: (None, Proof(0.0, 1.0)))
    return told


@pytest.mark.parametrize("options", [{}, {"half": True}, {"dynamic": True}, {"batch_size": 2}])
def test_what_the_converter_gets_computes_what_the_model_does(
    exported: Exported, tiny: Callable[[str], Path], given: dict[str, Any], options: dict[str, Any]
) -> None:
    row = exported("dynamic", include=("executorch",), **options)[1]
    assert (row.made, row.path.read_bytes()) == (True, b"half of a prog")
    half = "half" in options
    assert row.note == "without XNNPACK, so slow" + (", half precision" if half else "")
    about = given["about"]
    assert (about["names"], about["half"], about["form"]) == (["ant", "bee", "甲虫"], half, "B/F")
    assert about["dynamic"] == (["batch", "height", "width"] if "dynamic" in options else [])
    images = torch.rand(options.get("batch_size", 1), 3, 64, 64)
    with torch.no_grad():
        expected, found = load_model(tiny("dynamic"))[0](images)[0], given["program"].module()
    boxes = found(images.half() if half else images)
    torch.testing.assert_close(boxes, expected, rtol=0.05 if half else 1e-4, atol=1.0 if half else 1e-3)
    if "dynamic" in options:
        assert found(torch.rand(8, 3, 32, 48)).shape[0] == 8
        with pytest.raises(Exception, match="9"):
            found(torch.rand(9, 3, 32, 48))


def test_a_full_disk_is_told_and_leaves_nothing(exported: Exported, given: dict[str, Any], tmp_path: Path) -> None:
    given["full"] = True
    row = exported("static", include=("executorch",), output=str(tmp_path / "out"))[1]
    assert (row.made, row.note) == (False, "[Errno 28] No space left on device")
    assert list((tmp_path / "out").iterdir()) == []


def test_xnnpack_is_given_kernels_in_the_precision_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class NodeVisitor:
        def define_tensor(self, tensor: str, quant_params: Any = None, force_fp32: bool = False) -> None:
            seen.append((tensor, quant_params, force_fp32))

    name = "executorch.backends.xnnpack.operators.node_visitor"
    for parent in [name.rsplit(".", depth)[0] for depth in range(4, 0, -1)]:
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(NodeVisitor=NodeVisitor))
    with pytest.raises(KeyError), weights_as_they_are() as kept:
        NodeVisitor().define_tensor("image")
        NodeVisitor().define_tensor("kernel", force_fp32=True)
        NodeVisitor().define_tensor("whole numbers", quant_params=8, force_fp32=True)
        raise KeyError
    NodeVisitor().define_tensor("kernel", force_fp32=True)  # as before, also after an error
    assert seen == [
        ("image", None, False), ("kernel", None, False), ("whole numbers", 8, True), ("kernel", None, True),
    ]  # fmt: skip
    assert kept == [1]
