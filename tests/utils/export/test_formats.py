"""Every format of tiny models: made, equal to PyTorch at several batches and sizes, and used by the scripts."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.inference.backends import DetectMultiBackend, open_exported

CPU = torch.device("cpu")
Exported = Callable[..., list[Any]]


@pytest.mark.parametrize("kind", ["static", "dynamic", "condconv", "odconv"])
@pytest.mark.parametrize("form", ["auto", "M"])
def test_onnx_with_free_axes_equals_pytorch_at_any_batch_and_size(
    exported: Exported, tiny: Callable[[str], Path], kind: str, form: str
) -> None:
    pytest.importorskip("onnxruntime")
    row = exported(kind, include=("onnx",), dynamic=True, dynamic_form=form)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend, (model, _) = open_exported(row.path, CPU), load_model(tiny(kind))
    for shape in [(1, 3, 64, 64), (3, 3, 96, 32), (8, 3, 32, 64)]:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(backend(images)[0], model(images)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["norm", "residual", "norm and residual", "se"])
def test_norm_residual_and_squeeze_and_excitation_are_exported_exactly(
    exported: Exported, tiny: Callable[[str], Path], kind: str
) -> None:
    for package in ("onnxruntime", "openvino"):
        pytest.importorskip(package)
    rows = exported(kind, include=("onnx", "openvino", "torchscript"), dynamic=True)[1:]
    model, _ = load_model(tiny(kind))
    images = torch.rand(3, 3, 96, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)[0]
        for name, parameter in model.named_parameters():  # they do something: else it would be easy to be exact
            if ".attention." in name or ".gate." in name:
                parameter.zero_()
        assert (model(images)[0] - expected).abs().max() > 0.1
    for row in rows:
        assert row.made, row.note
        assert row.worst < 1e-4
        torch.testing.assert_close(open_exported(row.path, CPU)(images)[0], expected, rtol=1e-4, atol=1e-3)


def test_layers_that_turn_pixels_into_channels_are_exported_with_free_axes(exported: Exported) -> None:
    for package in ("onnxruntime", "openvino"):
        pytest.importorskip(package)
    for row in exported("pixels", include=("onnx", "openvino"), dynamic=True)[1:]:
        assert row.made, row.note
        assert row.worst < 1e-4


def test_torchscript_takes_any_batch_and_size(exported: Exported) -> None:
    row = exported("dynamic", include=("torchscript",))[1]
    assert row.made, row.note
    backend = open_exported(row.path, CPU)
    assert backend(torch.rand(3, 3, 96, 32))[0].shape == (3, 2 * (12 * 4 + 6 * 2) * 1, 8)
    assert (backend.info.form, backend.info.temperature) == ("B/F", 2.0)


def test_pt2_with_free_axes_equals_pytorch(exported: Exported) -> None:
    row = exported("dynamic", include=("pt2",), dynamic=True)[1]
    assert row.made, row.note
    assert row.worst < 1e-5
    assert open_exported(row.path, CPU)(torch.rand(5, 3, 32, 96))[0].shape[0] == 5
    with zipfile.ZipFile(row.path) as archive:  # images used on the way are not in it
        assert max(entry.file_size for entry in archive.infolist() if "sample_inputs" in entry.filename) < 2048


@pytest.mark.parametrize("name", ["torchscript", "onnx", "openvino", "pt2"])
def test_the_mode_of_a_file_cannot_be_changed_and_asking_for_it_is_no_error(exported: Exported, name: str) -> None:
    if name in ("onnx", "openvino"):
        pytest.importorskip({"onnx": "onnxruntime"}.get(name, name))
    row = exported("static", include=(name,))[1]
    assert row.made, row.note
    backend, images = open_exported(row.path, CPU), torch.rand(1, 3, 64, 64)
    before = backend(images)[0]
    assert not backend.train().training
    assert not backend.eval().training
    assert torch.equal(backend(images)[0], before)


def test_the_newer_onnx_exporter_is_used_from_opset_18_on(exported: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    row = exported("static", include=("onnx",), dynamic_axes=("batch",), opset=18)[1]
    assert row.made, row.note
    assert "opset 18" in row.note
    dims = onnx.load(row.path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 64, 64]


def test_one_axis_can_be_free_alone(exported: Exported) -> None:
    pytest.importorskip("onnxruntime")
    row = exported("static", include=("onnx",), dynamic_axes=("batch",))[1]
    assert row.made, row.note
    backend = open_exported(row.path, CPU)
    assert backend.info.dynamic == ("batch",)
    assert backend.fixed_hw == (64, 64)
    with pytest.raises(ValueError, match="takes images of height 64, got 32"):
        backend(torch.rand(1, 3, 32, 64))


def test_a_file_of_a_fixed_batch_takes_any_number_of_images(exported: Exported, tiny: Callable[[str], Path]) -> None:
    pytest.importorskip("onnxruntime")
    row = exported("dynamic", include=("onnx",), batch_size=2, dynamic_form="A")[1]
    assert row.made, row.note
    images = torch.rand(5, 3, 64, 64)
    with torch.no_grad():
        expected = load_model(tiny("dynamic"))[0](images)[0]
    torch.testing.assert_close(open_exported(row.path, CPU)(images)[0], expected, rtol=1e-4, atol=1e-3)


def test_the_file_knows_classes_stride_sizes_and_temperature(exported: Exported) -> None:
    pytest.importorskip("onnxruntime")
    row = exported("dynamic", include=("onnx",), simplify=True)[1]
    assert "simplified" in row.note
    backend = DetectMultiBackend(row.path)
    assert (backend.names, backend.stride, backend.fixed_hw) == (["ant", "bee", "甲虫"], 16, (64, 64))
    assert (backend.onnx, backend.pt, backend.jit) == (True, False, False)
    info = backend.backend.info
    assert (info.task, info.temperature, info.imgsz, info.batch, info.dynamic) == ("detect", 2.0, (64, 64), 1, ())


def test_a_failed_simplification_keeps_the_graph_and_says_so(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = pytest.importorskip("onnxslim")
    monkeypatch.setattr(slim, "slim", lambda model: 1 / 0)
    row = exported("static", include=("onnx",), simplify=True, dynamic=True)[1]
    assert row.made
    assert "simplification failed (division by zero), so the graph is as exported" in row.note


def test_constant_kernels_are_all_that_form_m_convolves_with(exported: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    path = exported("dynamic", include=("onnx",), dynamic_form="M")[1].path
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 5
    assert all(node.input[1] in constants for node in convolutions)


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_train_gives_the_maps_of_the_levels(exported: Exported, format: str) -> None:
    pytest.importorskip("onnxruntime")
    row = exported("dynamic", include=(format,), train=True)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend = open_exported(row.path, CPU)
    assert [list(level.shape) for level in backend.run(torch.rand(1, 3, 64, 64))] == [[1, 2, 8, 8, 8], [1, 2, 4, 4, 8]]
    with pytest.raises(ValueError, match="exported with --train"):
        backend(torch.rand(1, 3, 64, 64))


def test_half_precision_halves_the_file_and_takes_any_image(exported: Exported) -> None:
    pytest.importorskip("onnxruntime")
    full = exported("dynamic", include=("onnx",))[1].megabytes
    half = exported("dynamic", include=("onnx",), half=True)[1]
    assert half.made, half.note
    assert half.megabytes < 0.8 * full
    assert 1e-7 < half.worst < 0.05
    backend = DetectMultiBackend(half.path)
    assert backend.fp16
    assert backend(torch.rand(1, 3, 64, 64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "form"), [("static", "auto"), ("dynamic", "A1"), ("dynamic", "B"), ("dynamic", "F"), ("dynamic", "M")]
)
def test_opencv_runs_a_file_of_fixed_sizes(exported: Exported, kind: str, form: str) -> None:
    pytest.importorskip("onnx")
    path = exported(kind, include=("onnx",), dynamic_form=form)[1].path
    images = torch.rand(2, 3, 64, 64)
    by_opencv, by_runtime = (DetectMultiBackend(path, dnn=dnn) for dnn in (True, False))
    assert by_opencv.dnn and by_opencv.onnx
    torch.testing.assert_close(by_opencv(images), by_runtime(images), rtol=1e-4, atol=1e-3)


def test_opencv_refuses_free_axes(exported: Exported) -> None:
    pytest.importorskip("onnx")
    path = exported("static", include=("onnx",), dynamic=True)[1].path
    with pytest.raises(ValueError, match="OpenCV takes no file with free axes"):
        DetectMultiBackend(path, dnn=True)
