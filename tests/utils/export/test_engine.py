"""TensorRT engines, with a stand-in for the package that runs the graph by ONNX Runtime.

It has the calls of TensorRT 10 and 11 that are used here and no others, and takes and gives values through memory
addresses, as TensorRT does. What it cannot show is whether TensorRT itself finds kernels for the graph.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.checkpoint import load_model
from utils.core.errors import InputError
from utils.export.engine import EngineExporter
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends.engine import add_metadata, split_engine
from utils.inference.backends.metadata import Metadata, from_text

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
Exported = Callable[..., list[Any]]
CPU, STREAM, MAGIC = torch.device("cpu"), 7, b"ftrt"


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True


class DataType(enum.Enum):
    FLOAT, HALF, INT64 = range(3)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):  # FP16 is gone with release 11
    TF32 = 6


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class Config:
    def __init__(self) -> None:
        self.said: dict[str, Any] = {"cleared": [], "profiles": []}

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.said[pool.name] = size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.said["cleared"].append(flag.name)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.said["profiles"].append(profile.shapes)
        return 0


class Profile:
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes = {input: [list(min), list(opt), list(max)]}


class Network:
    graph = b""


class Builder:
    last: Config

    def __init__(self, logger: ILogger) -> None:
        assert logger.ready

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << 1
        return Network()

    def create_builder_config(self) -> Config:
        Builder.last = Config()
        return Builder.last

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        said = json.dumps(config.said).encode()
        return MAGIC + len(said).to_bytes(8, "little") + said + network.graph


class OnnxParser:
    num_errors = 1

    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network = network

    def parse(self, graph: bytes) -> bool:
        onnx.checker.check_model(onnx.load_model_from_string(graph), full_check=True)
        self.network.graph = graph
        return True

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: f"no importer for operator {index}")


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger: Any = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if not plan.startswith(MAGIC):
            self.logger.log(Severity.ERROR, "magic tag does not match\nand more")
            return None
        end = 12 + int.from_bytes(plan[4:12], "little")
        return Engine(plan[end:], json.loads(plan[12:end])["profiles"])


class Engine:
    def __init__(self, graph: bytes, profiles: list[Any]) -> None:
        self.session, self.profiles = ort.InferenceSession(graph, providers=["CPUExecutionProvider"]), profiles
        self.inputs = {port.name: port for port in self.session.get_inputs()}
        self.all = self.inputs | {port.name: port for port in self.session.get_outputs()}
        self.num_io_tensors = len(self.all)

    def get_tensor_name(self, index: int) -> str:
        return [*self.all][::-1][index]  # outputs may come first

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF}[self.all[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else -1 for side in self.all[name].shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Any]:
        found: list[Any] = self.profiles[index][name]
        return found

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses, self.shape = engine, {}, ()
        self.input = next(iter(engine.inputs))

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, most = (self.engine.get_tensor_profile_shape(name, 0)[i] for i in (0, 2)) if self.engine.profiles else (
            (self.engine.get_tensor_shape(name),) * 2
        )  # fmt: skip
        self.shape = shape
        return all(a <= side <= b for a, side, b in zip(least, shape, most))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def _compute(self, images: Any) -> Any:
        return self.engine.session.run(None, {self.input: images})[0]

    def _type(self) -> Any:
        return np.float16 if self.engine.get_tensor_dtype(self.input) is DataType.HALF else np.float32

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._compute(np.zeros(self.shape, self._type())).shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        images = np.empty(self.shape, self._type())
        ctypes.memmove(images.ctypes.data, self.addresses[self.input], images.nbytes)
        boxes = np.ascontiguousarray(self._compute(images))
        ctypes.memmove(self.addresses["output"], boxes.ctypes.data, boxes.nbytes)
        return True


@contextmanager
def no_gpu(device: torch.device) -> Iterator[int]:
    yield STREAM


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in in place of the package, and the CPU in place of the GPU."""
    module: Any = types.ModuleType("tensorrt")
    for part in (
        ILogger, DataType, TensorIOMode, MemoryPoolType, BuilderFlag, NetworkDefinitionCreationFlag, Builder,
        OnnxParser, Runtime,
    ):  # fmt: skip
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(EngineExporter, "obstacle", lambda *_: None)
    monkeypatch.setattr("utils.inference.backends.engine.check_device", lambda *_: None)
    for place in ("utils.inference.backends.engine.current_gpu", "utils.export.engine.current_gpu"):
        monkeypatch.setattr(place, no_gpu)
    return module


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize("kind", ["static", "dynamic", "odconv"])
def test_an_engine_with_free_axes_equals_pytorch_as_far_as_they_go(
    exported: Exported, tiny: Callable[[str], Path], kind: str
) -> None:
    row = exported(kind, include=("engine",), dynamic=True, workspace=3)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    assert Builder.last.said == {
        "WORKSPACE": 3 << 30, "cleared": ["TF32"],
        "profiles": [{"images": [[1, 3, 16, 16], [1, 3, 64, 64], [8, 3, 64, 64]]}],
    }  # fmt: skip
    backend, (model, _) = DetectMultiBackend(row.path, trust=True), load_model(tiny(kind))
    assert (backend.engine, backend.names, backend.fixed_hw) == (True, ["ant", "bee", "甲虫"], None)
    assert backend.backend.info.form == ("M" if kind != "static" else "")
    images = torch.rand(19, 3, 32, 64)  # three calls
    with torch.no_grad():
        torch.testing.assert_close(backend(images), model(images)[0], rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="takes images up to 64 x 64, got a width of 80; give a smaller --imgsz"):
        backend(torch.rand(1, 3, 64, 80))


@pytest.mark.usefixtures("tensorrt")
def test_an_engine_of_fixed_sizes_takes_any_number_of_images(exported: Exported) -> None:
    row = exported("dynamic", include=("engine",), batch_size=2)[1]
    assert row.made, row.note
    assert Builder.last.said["profiles"] == []
    assert open_exported(row.path, CPU, trust=True)(torch.rand(5, 3, 64, 64))[0].shape[0] == 5
    assert sorted(path.name for path in row.path.parent.iterdir()) == ["dynamic.engine"]


@pytest.mark.usefixtures("tensorrt")
def test_half_precision_goes_through_the_graph(exported: Exported) -> None:
    row = exported("dynamic", include=("engine",), half=True)[1]
    assert row.made, row.note
    assert 1e-7 < row.worst < 0.05
    assert DetectMultiBackend(row.path, trust=True).fp16


@pytest.mark.usefixtures("tensorrt")
def test_what_tensorrt_cannot_build_is_told_in_its_own_words(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Builder, "build_serialized_network", lambda *_: None)
    assert exported("static", include=("engine",))[1].note.startswith("TensorRT finds no way to compute it")
    monkeypatch.setattr(OnnxParser, "parse", lambda *_: False)
    assert exported("static", include=("engine",))[1].note == (
        "TensorRT cannot read the graph: no importer for operator 0"
    )


@pytest.mark.usefixtures("tensorrt")
def test_a_failing_run_is_told(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported("static", include=("engine",))[1].path
    backend = open_exported(path, CPU, trust=True)
    monkeypatch.setattr(Context, "execute_async_v3", lambda *_: False)
    with pytest.raises(InputError, match=r"static\.engine: TensorRT cannot run it: not with images \[1, 3, 64, 64\]"):
        backend(torch.rand(1, 3, 64, 64))


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize("content", [b"", b"\x80\x04 nothing of the kind", b"\x02\x00\x00\x00{}"])
def test_a_corrupt_file_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mit Leerzeichen ü.engine"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"ü\.engine: cannot be read as a TensorRT engine: magic tag does not match$"):
        DetectMultiBackend(file, trust=True)


@pytest.mark.usefixtures("tensorrt")
def test_an_engine_that_says_nothing_or_was_made_by_others_is_taken(exported: Exported) -> None:
    path = exported("static", include=("engine",))[1].path
    text, plan = split_engine(path.read_bytes())
    path.write_bytes(plan)
    assert (text["task"], DetectMultiBackend(path, trust=True).names) == ('"detect"', ["class0", "class1", "class2"])
    said = json.dumps({"names": {str(n): f"n{n}" for n in range(3)}, "stride": 16, "batch": 1}).encode()
    path.write_bytes(len(said).to_bytes(4, "little") + said + plan)
    backend = DetectMultiBackend(path, trust=True)
    assert (backend.names, backend.stride, backend.fixed_hw) == (["n0", "n1", "n2"], 16, (64, 64))


def test_the_description_in_front_of_an_engine_is_read_back() -> None:
    info = Metadata(names=("ant", "甲虫"), dynamic=("batch",), temperature=1.5)
    text, plan = split_engine(add_metadata(info, b"ftrt..."))
    assert (from_text(text, Path("a.engine")), plan) == (info, b"ftrt...")


def test_without_a_gpu_no_engine_is_made_or_run(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    row = exported("static", include=("engine",))[1]
    assert (row.made, row.impossible) == (False, True)
    assert "no CUDA device here; an engine fits the GPU it is made on" in row.note
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert exported("static", include=("engine",))[1].note.endswith("give --device 0")
    (tmp_path / "a.engine").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.engine: TensorRT runs on a GPU; give --device 0"):
        DetectMultiBackend(tmp_path / "a.engine", trust=True)


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorrt" else True)
    job: Any = types.SimpleNamespace(device=torch.device("cuda"))
    assert EngineExporter().obstacle(job) == "package tensorrt is missing: pip install tensorrt"
    (tmp_path / "a.engine").write_bytes(b"x")
    with pytest.raises(InputError, match="needs the package tensorrt: pip install tensorrt"):
        DetectMultiBackend(tmp_path / "a.engine", device="cuda", trust=True)
