"""ncnn folders: made, equal to PyTorch, looked at before ncnn sees them; and the program that converts."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from utils.checkpoint import load_model
from utils.core.errors import InputError
from utils.export import ncnn as exporter
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends.metadata import Metadata
from utils.inference.backends.ncnn import BIN, NCNN_METADATA, PARAM, SUMS, check_graph, checksum

CPU = torch.device("cpu")
Exported = Callable[..., list[Any]]
GRAPH = """7767517
3 4
Input    in0   0 1 in0
Split    split 1 2 in0 a b
BinaryOp add   2 1 a b out0 0=0
"""


@pytest.fixture
def needs_ncnn() -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder such as the exporter writes, of a graph that doubles its images."""
    made = tmp_path / "mit Leerzeichen ü_ncnn_model"
    made.mkdir()
    (made / PARAM).write_text(GRAPH, encoding="utf-8")
    (made / BIN).write_bytes(b"weights")
    describe(made)
    return made


def describe(folder: Path, **more: Any) -> None:
    info = Metadata(names=("ant", "甲虫"), imgsz=(32, 64), temperature=2.0, form="A1")
    about = {**info.to_plain(), SUMS: {name: checksum(folder / name) for name in (PARAM, BIN)}, **more}
    about = {key: list(value) if isinstance(value, tuple) else value for key, value in about.items()}
    (folder / NCNN_METADATA).write_text(yaml.safe_dump(about, allow_unicode=True), encoding="utf-8")


@pytest.mark.usefixtures("needs_ncnn")
@pytest.mark.parametrize("kind", ["static", "dynamic", "condconv", "odconv"])
def test_a_folder_equals_pytorch_and_takes_any_number_of_images(
    exported: Exported, tiny: Callable[[str], Path], kind: str
) -> None:
    row = exported(kind, include=("ncnn",))[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    assert sorted(file.name for file in row.path.iterdir()) == sorted([PARAM, BIN, NCNN_METADATA])
    backend, (model, _) = DetectMultiBackend(row.path), load_model(tiny(kind))
    assert (backend.ncnn, backend.onnx, backend.names) == (True, False, ["ant", "bee", "甲虫"])
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(backend(images), model(images)[0], rtol=1e-4, atol=2e-3)


@pytest.mark.usefixtures("needs_ncnn")
@pytest.mark.parametrize("form", ["A", "B", "F", "M"])
def test_every_form_of_one_image_can_be_had(exported: Exported, form: str) -> None:
    row = exported("dynamic", include=("ncnn",), dynamic_form=form, dynamic_axes=("height",))[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    assert "one image of one size" in row.note
    assert open_exported(row.path, CPU).info.form == {"B": "B/F"}.get(form, form)


@pytest.mark.usefixtures("needs_ncnn")
def test_half_precision_makes_the_weights_smaller(exported: Exported) -> None:
    full = exported("dynamic", include=("ncnn",))[1]
    size = (full.path / BIN).stat().st_size
    half = exported("dynamic", include=("ncnn",), half=True)[1]
    assert half.made, half.note
    assert (half.path / BIN).stat().st_size < 0.8 * size
    assert full.worst < half.worst < 0.05


def test_a_batch_is_refused_before_any_work(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    row = exported("static", include=("ncnn",), batch_size=4)[1]
    assert (row.made, row.impossible) == (False, True)
    assert "an ncnn file takes one image a call" in row.note


def test_missing_packages_are_named_and_a_program_on_the_path_is_enough(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    assert exported("static", include=("ncnn",))[1].note == "package pnnx is missing: pip install pnnx"
    monkeypatch.setattr(shutil, "which", lambda name, path=None: "/usr/bin/pnnx")
    assert exported("static", include=("ncnn",))[1].note == "package ncnn is missing: pip install ncnn"


@pytest.fixture
def pnnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``pnnx(lines)``: lets a Python program of these lines stand in for pnnx; gives the folder to work in."""

    def stand_in(lines: str) -> Path:
        script = tmp_path / "stand_in.py"
        script.write_text(lines, encoding="utf-8")
        monkeypatch.setattr(exporter, "pnnx_command", lambda: [sys.executable, str(script)])
        return tmp_path

    return stand_in


def test_the_converter_is_told_shape_precision_and_names(pnnx: Callable[[str], Path]) -> None:
    lines = f"import sys; open({PARAM!r}, 'w').write(' '.join(sys.argv[1:])); open({BIN!r}, 'w')"
    folder = pnnx(lines)
    exporter.run_pnnx(folder, (1, 3, 32, 64), half=True)
    told = (folder / PARAM).read_text().split()
    assert told == ["model.pt", "inputshape=[1,3,32,64]", "fp16=1", f"ncnnparam={PARAM}", f"ncnnbin={BIN}"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "print('first'); print('unknown operator'); raise SystemExit(3)",
            "pnnx failed (exit code 3): unknown operator",
        ),
        ("print('done')", f"pnnx wrote no {PARAM} and no {BIN}: done"),
        (f"open({PARAM!r}, 'w'); print('a.pt')", f"pnnx wrote no {BIN}: a.pt"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "pnnx was killed (SIGKILL, which is what the system sends when memory runs out): it printed nothing",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "pnnx crashed (SIGSEGV): it printed nothing"),
        ("import time; time.sleep(60)", "pnnx did not end within 1 seconds"),
    ],
)
def test_a_converter_that_fails_is_one_line(
    pnnx: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, lines: str, message: str
) -> None:
    monkeypatch.setattr(exporter, "_SECONDS", 1)
    with pytest.raises(InputError) as caught:
        exporter.run_pnnx(pnnx(lines), (1, 3, 32, 32), half=False)
    assert str(caught.value) == message


def test_what_the_converter_could_not_translate_is_named(tmp_path: Path) -> None:
    graph = GRAPH.replace("BinaryOp", "aten::fold").replace("Split ", "pnnx.Expression ")
    (tmp_path / PARAM).write_text(graph)
    with pytest.raises(InputError, match=r"ncnn has no layer for aten::fold, pnnx\.Expression"):
        exporter.check_layers(tmp_path / PARAM)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7767517", "PK", "it does not begin with 7767517"),
        ("3 4", "3 3", r":2: .*the numbers of layers or values are wrong"),
        ("3 4", "4 4", r":2: .*the numbers of layers or values are wrong"),
        ("3 4", "", r":2: .*the numbers of layers or values are wrong"),
        ("2 1 a b", "2 1 a c", r":5: .*impossible value"),
        ("1 2 in0 a b", "1 2 in0 a in0", r":4: .*impossible value"),
        ("1 2 in0 a b", "1 -2 in0 a b", r":4: .*no layer"),
        ("2 1 a b out0 0=0", "2 9 a b out0 0=0", r":5: .*no layer"),
        ("0 1 in0", "x", r":3: .*no layer"),
        ("0=0", "0=x", r":5: .*the setting '0=x' is not valid"),
        ("0=0", "0=1e40", r":5: .*the setting '0=1e40' is not valid"),
        ("0=0", "0=1,2", r":5: .*the setting '0=1,2' is not valid"),
        ("0=0", "-23303=3,1,2", r":5: .*the setting '-23303=3,1,2' is not valid"),
        ("0=0", "-23303=999999999,1", r":5: .*is not valid"),
        ("0=0", "0", r":5: .*the setting '0' is not valid"),
        ("0=0", "0=0 x", r":5: .*the setting 'x' is not valid"),
    ],
)
def test_a_graph_that_ncnn_would_stumble_over_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / PARAM).write_text(GRAPH)
    check_graph(tmp_path / PARAM)
    (tmp_path / PARAM).write_text(GRAPH.replace(old, new))
    with pytest.raises(InputError, match=message):
        check_graph(tmp_path / PARAM)


def test_settings_of_several_kinds_are_numbers(tmp_path: Path) -> None:
    (tmp_path / PARAM).write_text(GRAPH.replace("0=0", "0=1 -23303=2,1,2 1=-2.5e-3 -23300=3,2,2,-233 18=.5"))
    check_graph(tmp_path / PARAM)


@pytest.mark.parametrize("kind", ["MyLayer", "custom_layer", "Yolov3DetectionOutput", "binaryop", "128"])
def test_a_layer_that_no_detector_needs_is_refused_and_trust_is_named(
    folder: Path, fake_ncnn: type[FakeNet], kind: str
) -> None:
    (folder / PARAM).write_text(GRAPH.replace("BinaryOp", kind))
    describe(folder)
    refused(folder, rf"refused, it has a layer '{kind}' in line 5, which no detector needs; .* give --trust")
    assert open_exported(folder, CPU, trust=True).names == ["ant", "甲虫"]


def test_damaged_and_foreign_folders_are_named_in_one_line(folder: Path) -> None:
    (folder / BIN).write_bytes(b"weigh")
    refused(folder, rf"{BIN} is not the file that was exported \(cut off or changed\)")
    (folder / NCNN_METADATA).write_text(
        (folder / NCNN_METADATA).read_text(encoding="utf-8").replace("sha256", "sha"), encoding="utf-8"
    )
    refused(folder, f"{NCNN_METADATA} says nothing of sha256")
    (folder / PARAM).write_bytes(b"\x80\x04 nothing of the kind")
    refused(folder, "cannot be read as an ncnn model")
    (folder / PARAM).write_text(GRAPH)
    (folder / NCNN_METADATA).write_text("names: {0: ant}\n")
    refused(folder, "not exported by this program")
    (folder / NCNN_METADATA).write_text("[")
    refused(folder, r"metadata\.yaml:1: not valid yaml")
    (folder / BIN).unlink()
    refused(folder, f"{BIN} missing; make it with export.py --include ncnn")
    shutil.rmtree(folder)
    folder.touch()
    refused(folder, "expected a folder with")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        DetectMultiBackend(folder)
    assert "\n" not in str(caught.value)


class FakeNet:
    """Doubles its image, as ``GRAPH`` says, or fails where told to."""

    failing: str = ""

    def __init__(self) -> None:
        self.opt = types.SimpleNamespace()

    def load_param(self, path: str) -> int:
        return -1 if self.failing == "param" else 0

    def load_model(self, path: str) -> int:
        return -1 if self.failing == "model" else 0

    def create_extractor(self) -> FakeNet:
        return self

    def input(self, name: str, image: Any) -> int:
        self.image = image
        return -1 if self.failing == "input" else 0

    def extract(self, name: str) -> tuple[int, Any]:
        return (-100 if self.failing == "extract" else 0), self.image.values.reshape(-1, 7) * 2


class FakeMat:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def clone(self) -> FakeMat:
        return FakeMat(self.values.copy())


@pytest.fixture
def fake_ncnn(monkeypatch: pytest.MonkeyPatch) -> type[FakeNet]:
    net = type("Net", (FakeNet,), {})
    monkeypatch.setitem(sys.modules, "ncnn", types.SimpleNamespace(Net=net, Mat=FakeMat))
    monkeypatch.setattr(
        "utils.inference.backends.ncnn.run_ncnn_in_sandbox", lambda *_: None
    )  # another process has no stand-in
    return net


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.usefixtures("fake_ncnn")
def test_the_backend_runs_images_one_by_one_in_the_precision_of_the_weights(folder: Path, half: bool) -> None:
    describe(folder, half_weights=half, imgsz=[32, 56])
    backend = open_exported(folder, CPU)
    options = vars(backend.net.opt)
    assert {options[f"use_fp16_{part}"] for part in ("packed", "storage", "arithmetic")} == {half}
    assert (options["use_bf16_storage"], options["num_threads"]) == (False, torch.get_num_threads())
    images = torch.rand(2, 3, 32, 56)
    assert torch.equal(backend(images)[0], 2 * images.reshape(2, -1, 7))
    assert (backend.names, backend.info.temperature, backend.fixed_hw) == (["ant", "甲虫"], 2.0, (32, 56))


@pytest.mark.parametrize("where", ["param", "model"])
def test_what_ncnn_itself_refuses_is_one_line(folder: Path, fake_ncnn: type[FakeNet], where: str) -> None:
    fake_ncnn.failing = where
    refused(folder, "cannot be read as an ncnn model by the installed ncnn")


@pytest.mark.parametrize("where", ["input", "extract"])
def test_a_run_that_fails_is_one_line(folder: Path, fake_ncnn: type[FakeNet], where: str) -> None:
    describe(folder, imgsz=[32, 56])
    backend = open_exported(folder, CPU)
    fake_ncnn.failing = where
    with pytest.raises(InputError, match=r"ncnn cannot run it \(code -1"):
        backend(torch.rand(1, 3, 32, 56))


@pytest.mark.usefixtures("needs_ncnn")
def test_the_graph_of_the_tests_is_one_that_ncnn_takes(folder: Path) -> None:
    images = torch.rand(1, 3, 32, 64)
    found = open_exported(folder, CPU).run(images)[0]
    np.testing.assert_allclose(found, 2 * images.numpy())


# Stands in for the package in a process of its own as well, where it falls at the place that the graph names.
FALLING = """
import os, signal
def fall(here):
    if Net.where == here: os.kill(os.getpid(), signal.SIGSEGV)
class Net:
    where = ""
    def __init__(self): self.opt = type("Option", (), {})()
    def load_param(self, path):
        Net.where = open(path).read().split("#")[-1].split()[0]
        return fall("param") or 0
    def load_model(self, path): return fall("model") or 0
    def create_extractor(self): return self
    def input(self, name, image): return fall("input") or 0
    def extract(self, name): return fall("extract") or 0, self
class Mat:
    def __init__(self, image): assert image.shape == (3, 32, 64)
    def clone(self): return self
"""


@pytest.mark.parametrize("where", ["param", "model", "input", "extract", "nowhere"])
def test_a_model_that_makes_ncnn_fall_does_so_in_another_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "ncnn.py").write_text(FALLING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ncnn", raising=False)
    (folder / PARAM).write_text(GRAPH.replace(" add ", f" add#{where} "))
    describe(folder)
    try:
        if where == "nowhere":
            assert open_exported(folder, CPU).names == ["ant", "甲虫"]
        else:
            refused(
                folder, r"ü_ncnn_model: cannot .*: ncnn, in a separate process, crashed \(SIGSEGV\).*; export it anew"
            )
    finally:
        sys.modules.pop("ncnn", None)


def test_a_model_that_takes_all_memory_ends_its_trial_and_not_us(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = 'return fall("load") or bytearray(6 << 30) and 0'
    (tmp_path / "ncnn.py").write_text(FALLING.replace('return fall("model") or 0', greedy))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ncnn", raising=False)
    monkeypatch.setattr("utils.inference.backends.checked_graph.free_memory", lambda device: 0)  # so 4 GiB are allowed
    (folder / PARAM).write_text(GRAPH.replace(" add ", " add#nowhere "))
    describe(folder)
    try:
        refused(folder, "MemoryError")
    finally:
        sys.modules.pop("ncnn", None)


@pytest.mark.usefixtures("needs_ncnn")
def test_a_graph_whose_sums_are_right_and_whose_settings_are_not_is_one_line(folder: Path) -> None:
    graph = GRAPH.replace("Split    split 1 2 in0 a b", "Swish    split 1 1 in0 a").replace(
        "2 1 a b out0", "1 1 a out0"
    )
    (folder / PARAM).write_text(graph.replace("3 4", "3 3"))  # a sum of two values with one of them given
    describe(folder)
    refused(folder, r"cannot be read as an ncnn model: .* crashed \(SIG")
