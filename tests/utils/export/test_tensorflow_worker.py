"""What is done around the converters of the TensorFlow family, with stand-ins where their packages would be."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.export import tflite
from utils.inference.venvs import Stack

Exported = Callable[..., list[Any]]


@pytest.fixture
def converter() -> Any:
    """The program, loaded as a module."""
    spec = importlib.util.spec_from_file_location("converter", tflite.CONVERTER)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``package(name, **members)``: a module that can be imported, with its parents."""

    def make(name: str, **members: Any) -> Any:
        parent, _, last = name.rpartition(".")
        module: Any = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
        if parent:
            setattr(sys.modules.get(parent) or make(parent), last, module)
        return module

    return make


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A ``.pt2`` that doubles its images."""

    class Double(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * 2

    file = tmp_path / "through.pt2"
    torch.export.save(torch.export.export(Double(), (torch.ones(1, 2, 2, 3),)), file)
    return file


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_a_tflite_file_is_made_of_the_program_and_its_weights_shrunk_as_wanted(
    converter: Any, package: Callable[..., Any], program: Path, tmp_path: Path, weights: str
) -> None:
    target, calls = tmp_path / "a.tflite", []

    class Made:
        def __init__(self, module: Any, images: Any) -> None:
            self.sum = float(module(*images).sum())

        def export(self, file: str) -> None:
            Path(file).write_text(f"sum {self.sum}")

    class Quantizer:
        def __init__(self, file: str) -> None:
            self.content = Path(file).read_text()

        def add_dynamic_config(self, pattern: str, kind: str, bits: int) -> None:
            calls.append((pattern, kind, bits))

        def add_weight_only_config(self, pattern: str, kind: str, bits: int, algorithm_key: str) -> None:
            calls.append((pattern, kind, bits, algorithm_key))

        def quantize(self) -> Any:
            return types.SimpleNamespace(export_model=self.write)

        def write(self, file: str) -> None:
            assert not Path(file).exists()  # the library refuses to write over a file
            Path(file).write_text(f"{self.content}, smaller")

    package("litert_torch", convert=Made)
    kinds = types.SimpleNamespace(CONV_2D="conv", DEPTHWISE_CONV_2D="depthwise", FULLY_CONNECTED="dense")
    algorithms = types.SimpleNamespace(FLOAT_CASTING="cast")
    package("ai_edge_quantizer", qtyping=types.SimpleNamespace(TFLOperationName=kinds))
    package("ai_edge_quantizer.quantizer", Quantizer=Quantizer, AlgorithmName=algorithms)
    converter.to_tflite({"source": str(program), "target": str(target), "weights": weights})
    assert target.read_text() == "sum 24.0" + ("" if weights == "float32" else ", smaller")
    how = {"float32": None, "float16": (16, "cast"), "int8": (8,)}[weights]
    assert calls == [(".*", kind, *how) for kind in ("conv", "depthwise", "dense") if how]


@pytest.fixture
def onnx2tf(package: Callable[..., Any]) -> list[dict[str, Any]]:
    """What the converter of TensorFlow was asked; its first way fails on sources with "rare" in their name."""
    asked: list[dict[str, Any]] = []

    def convert(input_onnx_file_path: str, output_folder_path: str, **options: Any) -> None:
        asked.append(options)
        folder = Path(output_folder_path)
        assert not folder.exists()
        (folder / "variables").mkdir(parents=True)
        for name in ("a_float16.tflite", "a.json"):
            (folder / name).touch()
        if "rare" in input_onnx_file_path and "flatbuffer_direct_output_saved_model" in options:
            raise NotImplementedError
        (folder / "saved_model.pb").touch()

    package("onnx2tf", convert=convert)
    return asked


@pytest.mark.parametrize("source", ["usual.onnx", "rare.onnx"])
def test_of_a_saved_model_only_what_belongs_to_it_is_kept_and_there_is_a_second_way(
    converter: Any, onnx2tf: list[dict[str, Any]], tmp_path: Path, source: str
) -> None:
    converter.to_saved_model({"source": source, "target": str(tmp_path / "a_saved_model")})
    assert sorted(file.name for file in (tmp_path / "a_saved_model").iterdir()) == ["saved_model.pb", "variables"]
    ways = [next(iter(set(options) - {"non_verbose", "verbosity"} - {"output_signaturedefs"})) for options in onnx2tf]
    assert ways == ["flatbuffer_direct_output_saved_model", "tflite_backend"][: 1 + (source == "rare.onnx")]


@pytest.mark.usefixtures("onnx2tf")
def test_a_frozen_graph_says_what_it_is_and_leaves_no_folder(
    converter: Any, package: Callable[..., Any], tmp_path: Path
) -> None:
    class Graph:
        def __init__(self, *nodes: str) -> None:
            self.node = list(nodes)

        def as_default(self) -> Any:
            return self

        def __enter__(self) -> Graph:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def as_graph_def(self) -> Graph:
            return self

        def SerializeToString(self) -> bytes:
            return " ".join(self.node).encode()

    extra = Graph()

    def load(folder: str) -> Any:
        assert (Path(folder) / "saved_model.pb").exists()
        return types.SimpleNamespace(signatures={"serving_default": "the network"})

    package(
        "tensorflow", saved_model=types.SimpleNamespace(load=load), Graph=lambda: extra,
        constant=lambda value, name: extra.node.append(f"{name}={value}"),
    )  # fmt: skip
    package(
        "tensorflow.python.framework.convert_to_constants",
        convert_variables_to_constants_v2=lambda served: types.SimpleNamespace(graph=Graph(served)),
    )
    converter.to_frozen_graph({"source": "a.onnx", "target": str(tmp_path / "a.pb"), "about": "said"})
    assert (tmp_path / "a.pb").read_text() == f"the network {converter.ABOUT_NODE}=said"
    assert [file.name for file in tmp_path.iterdir()] == ["a.pb"]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """``stand_in(lines)``: a program of these lines is the converter; ``work`` is what it is asked."""
    monkeypatch.setattr(Stack, "find_python", lambda *_: Path(sys.executable))

    def use(lines: str) -> None:
        file = tmp_path / "stand_in.py"
        file.write_text(f"import errno, json, os, sys\nwork = json.loads(sys.argv[1])\n{lines}\n", encoding="utf-8")
        monkeypatch.setattr(tflite, "CONVERTER", file)

    yield use


HALF = "open(work['target'], 'w').write('half')\n"
EXPORT_FORMATS = ("saved_model", "pb", "tflite")


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (f"{HALF}raise OSError(errno.ENOSPC, 'No space left on device')", r"failed (exit code 1): [Errno 28] No space"),
        (f"{HALF}os.kill(os.getpid(), 9)", "was killed (SIGKILL, which is what the system sends when memory runs out)"),
        ("raise SystemExit('no operator Fold')", "failed (exit code 1): no operator Fold"),
    ],
)
def test_a_converter_that_fails_is_told_for_each_format_and_leaves_nothing(
    exported: Exported, stand_in: Callable[[str], None], tmp_path: Path, lines: str, note: str
) -> None:
    pytest.importorskip("onnx")
    stand_in(lines)
    rows = exported("static", include=(*EXPORT_FORMATS, "static", "torchscript"), output=str(tmp_path / "out"))
    told = {row.format: row.note for row in rows if row.format in EXPORT_FORMATS}
    assert sorted(told) == sorted(EXPORT_FORMATS)
    assert all(f"the converter {note}" in reason for reason in told.values()), told
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["static.torchscript"]  # the others go on


def test_each_format_asks_the_converter_for_itself_under_the_names_its_files_have(
    exported: Exported, stand_in: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    log = tmp_path / "asked"
    stand_in(f"open({str(log)!r}, 'a').write(sys.argv[1] + chr(10)); assert os.path.getsize(work['source']) > 1000")
    for name in EXPORT_FORMATS:
        exported("dynamic", include=(name,), output=str(tmp_path / "aus gang 图"))
    asked = {work["to"]: work for work in map(json.loads, log.read_text(encoding="utf-8").splitlines())}
    endings = {name: Path(work["target"]).name for name, work in asked.items()}
    assert endings == {"saved_model": "dynamic_saved_model", "pb": "dynamic.pb", "tflite": "dynamic.tflite"}
    assert {name: Path(work["source"]).name for name, work in asked.items()} == {
        "saved_model": "through.onnx", "pb": "through.onnx", "tflite": "through.pt2",
    }  # fmt: skip
    assert json.loads(asked["pb"]["about"])["names"] == ["ant", "bee", "甲虫"]
    assert asked["tflite"]["weights"] == "float32"
