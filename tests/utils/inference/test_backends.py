"""DetectMultiBackend and attempt_load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import models.experimental
from utils.checkpoint import load_model
from utils.core.errors import InputError
from utils.inference.attempt_load import attempt_load
from utils.inference.backends import DetectMultiBackend
from utils.inference.backends.metadata import Metadata, from_text


@pytest.fixture(scope="module")
def backend(eager_weights: Path) -> DetectMultiBackend:
    return DetectMultiBackend(eager_weights)


def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_it_has_the_attributes_that_scripts_read(backend: DetectMultiBackend) -> None:
    assert (backend.stride, backend.names) == (32, ["ant", "bee"])
    assert (backend.pt, backend.jit, backend.onnx, backend.engine, backend.fp16) == (True, False, False, False, False)
    assert backend.device == torch.device("cpu")


def test_it_answers_with_the_boxes_of_the_model(backend: DetectMultiBackend, eager_weights: Path) -> None:
    model, _ = load_model(eager_weights)
    with torch.no_grad():
        expected, maps = model(image())
        torch.testing.assert_close(backend(image()), expected, rtol=1e-4, atol=1e-2)  # batch norm is folded in
        decoded, raw = backend(image(), val=True)
    assert torch.equal(decoded, backend(image()))
    assert [level.shape for level in raw] == [level.shape for level in maps]


def test_augment_adds_candidates(backend: DetectMultiBackend) -> None:
    assert backend(image(), augment=True).shape[1] > backend(image()).shape[1]


def test_the_model_may_be_switched_to_half_precision(eager_weights: Path) -> None:
    backend = DetectMultiBackend(str(eager_weights))
    backend.model.half()
    assert backend.fp16
    backend.model.float()
    assert not backend.fp16


def test_warming_up_does_nothing_on_a_cpu(backend: DetectMultiBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "forward", lambda *_: pytest.fail("ran"))
    backend.warmup(imgsz=(1, 3, 64, 64), half=False)


@pytest.mark.parametrize("name", ["best.exe", "best"])
def test_an_unknown_format_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: not a model file by its name; known are .pt, .torchscript, .onnx"):
        DetectMultiBackend(name)


NEEDED = {".onnx": "onnxruntime", "_openvino_model": "openvino", ".xml": "openvino"}


@pytest.mark.parametrize("ending", [".torchscript", ".onnx", ".pt2", ".xml"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04 nothing of the kind", b"PK\x03\x04 nor this"])
def test_a_corrupt_file_is_named_in_one_line(ending: str, content: bytes, tmp_path: Path) -> None:
    pytest.importorskip(NEEDED.get(ending, "torch"))
    file = tmp_path / f"mit Leerzeichen ü{ending}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"mit Leerzeichen ü\S+: cannot be read as an? ") as caught:
        DetectMultiBackend(file)
    assert "\n" not in str(caught.value)


def test_a_corrupt_file_given_to_opencv_is_named_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "a.onnx").write_bytes(b"\x80\x04 nothing of the kind")
    with pytest.raises(InputError, match=r"a\.onnx: cannot be read as an ONNX file"):
        DetectMultiBackend(tmp_path / "a.onnx", dnn=True)


@pytest.mark.parametrize("name", ["a.torchscript", "a.onnx", "a.pt2", "a.xml", "a_openvino_model"])
def test_a_missing_exported_file_is_named(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDED.get(name[1:], "torch"))
    with pytest.raises(FileNotFoundError, match=name):
        DetectMultiBackend(tmp_path / name)


def test_a_foreign_onnx_file_is_refused_when_its_output_is_no_boxes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    graph = "<ir_version: 8, opset_import: ['': 13]> g (float[1,3,64,64] x) => (float[1,3,64,64] y) { y = Relu(x) }"
    onnx.save(onnx.parser.parse_model(graph.replace("'", '"')), tmp_path / "relu.onnx")
    backend = DetectMultiBackend(tmp_path / "relu.onnx")
    assert backend.names[0] == "class0"
    with pytest.raises(InputError, match=r"expected boxes \[1, any, 64\] for 59 classes, got \[1, 3, 64, 64\]"):
        backend(torch.zeros(1, 3, 64, 64))


def test_what_yolov5_itself_writes_into_a_file_is_understood() -> None:
    info = from_text({"names": "{0: 'ant', 1: 'bee'}", "stride": "64"}, Path("a.onnx"), shape=["b", 3, 96, "w"])
    assert (info.names, info.stride, info.dynamic, info.imgsz) == (("ant", "bee"), 64, ("batch", "width"), (96, 640))


def test_names_come_from_the_file_else_from_the_yaml_else_they_are_needed() -> None:
    given, file = ("x", "y"), Path("a.onnx")
    assert from_text({"names": "['ant', 'bee']"}, file, given).names == ("ant", "bee")
    assert from_text({}, file, given).names == given
    assert from_text({}, file, classes=2).names == ("class0", "class1")
    with pytest.raises(InputError, match="says nothing of its classes"):
        from_text({}, file)


@pytest.mark.parametrize("names", ["__import__('os').getcwd()", "[", "3"])
def test_what_a_file_says_is_never_evaluated(names: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        from_text({"names": names}, Path("a.onnx"))


def test_metadata_survives_the_way_through_text() -> None:
    info = Metadata(names=("ant", "甲虫"), imgsz=(64, 96), dynamic=("batch",), temperature=1.5, form="B/F", nms=True)
    assert from_text(info.to_text(), Path("a.onnx")) == info


def test_an_exported_file_is_no_part_of_an_ensemble(eager_weights: Path) -> None:
    with pytest.raises(InputError, match=r"b\.onnx: an ensemble is made of \.pt files"):
        DetectMultiBackend([eager_weights, "b.onnx"])


def test_no_file_is_refused() -> None:
    with pytest.raises(InputError, match="no file"):
        DetectMultiBackend([])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        DetectMultiBackend("absent.pt")


def test_several_files_become_an_ensemble(eager_weights: Path, backend: DetectMultiBackend) -> None:
    pair = DetectMultiBackend([eager_weights, eager_weights])
    single = backend(image())
    assert torch.equal(pair(image()), torch.cat([single, single], 1))
    assert pair(image(), val=True)[1] is None
    assert pair(image(), augment=True).shape[1] == 2 * backend(image(), augment=True).shape[1]
    assert pair.names == ["ant", "bee"]


def test_visualize_is_said_to_have_no_effect(backend: DetectMultiBackend, caplog: pytest.LogCaptureFixture) -> None:
    backend(image(), visualize=True)
    assert "no effect" in caplog.text


def test_attempt_load_takes_the_arguments_of_old_calls(eager_weights: Path) -> None:
    model = attempt_load(str(eager_weights), map_location="cpu")
    assert model(image(), augment=False)[0].shape == (1, 252, 7)
    assert not model.training
    assert int(model.stride.max()) == 32
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_attempt_load_can_leave_batch_norm_in_place(eager_weights: Path) -> None:
    model = attempt_load(eager_weights, fuse=False)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attempt_load_is_found_where_scripts_look_for_it() -> None:
    assert models.experimental.attempt_load is attempt_load


@pytest.mark.parametrize(
    "name",
    [
        "best.onnx", "best_openvino_model", "best.pt2", "best.torchscript", "best.mlpackage", "best_ncnn_model",
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_named_before_any_package_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in ("onnxruntime", "onnx", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
        DetectMultiBackend(tmp_path / name)


def test_later_arguments_name_precision_folding_and_device(
    eager_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = DetectMultiBackend(eager_weights, fp16=True, fuse=False)
    assert not backend.fp16
    assert "fp16 needs a GPU" in caplog.text
    assert backend.triton is False
    assert hasattr(backend.model.model[0], "bn")
    assert not hasattr(attempt_load(eager_weights, device="cpu").model[0], "bn")
    assert next(attempt_load(eager_weights, device="meta", fuse=False).parameters()).is_meta
