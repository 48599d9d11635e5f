"""The TensorFlow family: what is said without its environments, and, where they are, that each file equals PyTorch."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.config.options import ExportOptions
from utils.core.errors import InputError
from utils.export.export_job import ExportJob
from utils.export.export_network import ExportNetwork
from utils.export.tensorflow import FrozenGraphExporter, SavedModelExporter
from utils.export.tflite import Shares, TFLiteExporter
from utils.inference.backends import DetectMultiBackend
from utils.inference.venvs import LITERT_TORCH, ONNX2TF, isolated_command

Exported = Callable[..., list[Any]]
Tiny = Callable[[str], Path]
needs_litert = pytest.mark.skipif(LITERT_TORCH.find_python() is None, reason="no environment with litert-torch")
needs_tensorflow = pytest.mark.skipif(ONNX2TF.find_python() is None, reason="no environment with onnx2tf")


def test_an_environment_that_is_not_there_is_named_before_any_work(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.inference.venvs.Stack.find_python", lambda *_: None)
    pytest.importorskip("onnx")
    rows = exported("static", include=("tflite", "saved_model", "pb"), venvs=str(tmp_path / "v"))[1:]
    assert [(row.format, row.made, row.impossible) for row in rows] == [
        ("saved_model", False, True), ("pb", False, True), ("tflite", False, True),
    ]  # fmt: skip
    assert (
        f"python3.12 -m venv {tmp_path}/v/tf && {tmp_path}/v/tf/bin/pip install 'onnx2tf[tensorflow]'" in rows[0].note
    )
    assert f"python3 -m venv {tmp_path}/v/litert && {tmp_path}/v/litert/bin/pip install litert-torch" in rows[2].note


def test_boxes_are_shares_of_the_image_and_images_rows_of_colours(tiny: Tiny) -> None:
    model, _ = load_model(tiny("dynamic"))
    network = ExportNetwork(model, TFLiteExporter().form(ExportOptions()), (64, 96))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = network(images)
        rows = Shares(network, (64, 96), model.head.no, rows=True)(images.permute(0, 2, 3, 1))
        planes = Shares(network, (64, 96), model.head.no, rows=False)(images)
    scale = torch.tensor([96.0, 64, 96, 64, 1, 1, 1, 1])
    torch.testing.assert_close(rows * scale, expected)
    torch.testing.assert_close(planes, rows)


@pytest.mark.parametrize("exporter", [SavedModelExporter(), FrozenGraphExporter()])
def test_computed_kernels_are_refused_where_they_would_not_load(exporter: SavedModelExporter) -> None:
    assert exporter.form(ExportOptions()).value == "M"
    for form in ("A", "A1", "B"):
        with pytest.raises(InputError, match=f"--dynamic-form {form} does not run as {exporter.name}; possible are M$"):
            exporter.form(ExportOptions(dynamic_form=form))


@pytest.mark.parametrize(
    ("options", "weights", "form"),
    [
        ({}, "float32", "M"),
        ({"half": True}, "float16", "M"),
        ({"int8": True}, "int8", "M"),
        ({"batch_size": 2, "dynamic_form": "B"}, "float32", "B/F"),
    ],
)
def test_what_the_converter_of_tflite_gets_computes_what_the_model_does(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], weights: str, form: str
) -> None:
    given: dict[str, Any] = {}

    def convert(_: Any, job: ExportJob, **work: Any) -> None:
        given.update(work, answer=torch.export.load(work["source"]).module()(rows))
        Path(work["target"]).write_bytes(b"model")

    monkeypatch.setattr(TFLiteExporter, "convert", convert)
    model, _ = load_model(tiny("dynamic"))
    wanted = ExportOptions(include=("tflite",), dynamic=True, **options)
    rows = torch.rand(wanted.batch_size, 64, 96, 3)
    notes = TFLiteExporter().write(ExportJob(model, wanted, (64, 96), tmp_path / "a"), tmp_path / "a.tflite")
    assert given["weights"] == weights
    assert notes[0].startswith("batch and size are fixed")
    assert notes[1:] == ([] if weights == "float32" else [f"weights in {weights}"])
    with torch.no_grad():
        expected = model(rows.permute(0, 3, 1, 2))[0] / torch.tensor([96.0, 64, 96, 64, 1, 1, 1, 1])
    torch.testing.assert_close(given["answer"], expected, rtol=1e-4, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "a.tflite") as archive:
        said = json.loads(archive.read("about.json"))
    assert (said["form"], said["half"], said["dynamic"], said["batch"]) == (form, False, [], wanted.batch_size)


def test_8_bit_weights_need_no_images() -> None:
    assert ExportOptions(include=("tflite",), int8=True).int8
    with pytest.raises(InputError, match="--int8 measures its scales on images"):
        ExportOptions(include=("tflite", "onnx"), int8=True)


@needs_litert
@pytest.mark.parametrize(("kind", "form"), [("static", "auto"), ("dynamic", "auto"), ("dynamic", "M"), ("odconv", "B")])
def test_a_tflite_file_equals_pytorch(exported: Exported, tiny: Tiny, kind: str, form: str) -> None:
    row = exported(kind, include=("tflite",), imgsz=(64, 96), dynamic_form=form)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend = DetectMultiBackend(row.path)
    assert (backend.names, backend.stride, backend.tflite) == (["ant", "bee", "甲虫"], 16, True)
    _equals(backend, tiny(kind), (64, 96))


@needs_litert
def test_a_tflite_file_of_a_fixed_batch_takes_any_number_of_images(exported: Exported, tiny: Tiny) -> None:
    row = exported("dynamic", include=("tflite",), batch_size=2)[1]
    assert row.made, row.note
    _equals(DetectMultiBackend(row.path), tiny("dynamic"), (64, 64), pictures=3)


@needs_litert
def test_the_description_in_a_tflite_file_is_an_ordinary_archive(exported: Exported) -> None:
    row = exported("dynamic", include=("tflite",))[1]
    assert row.made, row.note
    with zipfile.ZipFile(row.path) as archive:
        said = json.loads(archive.read("about.json"))
    assert (said["names"], said["temperature"], said["imgsz"]) == (["ant", "bee", "甲虫"], 2.0, [64, 64])


@needs_litert
def test_fewer_bits_make_a_smaller_tflite_file(exported: Exported) -> None:
    full = exported("odconv", include=("tflite",))[1].megabytes
    for options, text, limit in (({"half": True}, "float16", 0.9), ({"int8": True}, "int8", 0.85)):
        row = exported("odconv", include=("tflite",), **options)[1]
        assert row.made, row.note
        assert text in row.note
        assert row.megabytes < limit * full
        assert 1e-6 < row.worst < 1


@needs_tensorflow
@pytest.mark.parametrize(("kind", "format"), [("dynamic", "saved_model"), ("odconv", "pb"), ("static", "pb")])
def test_a_tensorflow_model_equals_pytorch(exported: Exported, tiny: Tiny, kind: str, format: str) -> None:
    row = exported(kind, include=(format,), imgsz=(64, 96))[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend = DetectMultiBackend(row.path)
    assert (backend.names, backend.stride, getattr(backend, format)) == (["ant", "bee", "甲虫"], 16, True)
    _equals(backend, tiny(kind), (64, 96), pictures=2)


@needs_tensorflow
@pytest.mark.parametrize("name", ["a_saved_model", "a.pb"])
def test_a_tensorflow_file_that_is_none_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"größe {name}"
    inner = file / "saved_model.pb" if name.endswith("_model") else file
    inner.parent.mkdir(exist_ok=True)
    for content in (b"", b"\x80\x04 nothing of the kind"):
        inner.write_bytes(content)
        with pytest.raises(InputError, match=r"größe .* cannot be read as a") as caught:
            DetectMultiBackend(file)
        assert "\n" not in str(caught.value)


# A model of somebody else, as v6.1 makes them: variables, and boxes as shares; then two that do more than compute.
FOREIGN = """
import sys, tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as frozen

def written(name, answer):
    model = tf.Module()
    model.v = tf.Variable(tf.ones([4]) * [0.5, 0.25, 0.1, 0.2])

    @tf.function(input_signature=[tf.TensorSpec([1, 32, 64, 3], tf.float32, name="x")])
    def run(x):
        rest = tf.reduce_mean(x, [1, 2])[:, None, :]
        return answer(tf.concat([tf.reshape(model.v, [1, 1, 4]), rest], 2))

    tf.saved_model.save(model, f"{sys.argv[1]}/{name}_saved_model", signatures=run.get_concrete_function())
    graph = frozen(run.get_concrete_function()).graph.as_graph_def()
    open(f"{sys.argv[1]}/{name}.pb", "wb").write(graph.SerializeToString())

def reads(y):
    return y + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

def runs(y):
    return tf.ensure_shape(tf.numpy_function(lambda a: a, [y], tf.float32, stateful=False), y.shape)

for name, answer in (("good", tf.identity), ("reads", reads), ("runs", runs)):
    written(name, answer)
"""


@needs_tensorflow
def test_models_of_others_are_run_unless_they_do_more_than_compute(tmp_path: Path) -> None:
    subprocess.run(
        isolated_command(ONNX2TF.require("test"), "-c", FOREIGN, str(tmp_path)), capture_output=True, check=True
    )
    for ending in ("_saved_model", ".pb"):
        backend = DetectMultiBackend(tmp_path / f"good{ending}")
        assert (backend.names, backend.fixed_hw) == (["class0", "class1"], (32, 64))
        images = torch.zeros(1, 3, 32, 64)
        images[:, 0] = 0.75
        torch.testing.assert_close(backend(images), torch.tensor([[[32.0, 8, 6.4, 6.4, 0.75, 0, 0]]]))
        for name, operation in (("reads", "ReadFile"), ("runs", "PyFuncStateless")):
            with pytest.raises(InputError, match=f"refused, it holds operations .* needs: .*{operation}"):
                DetectMultiBackend(tmp_path / f"{name}{ending}")


@needs_litert
def test_a_tflite_file_that_is_none_is_named_in_one_line(exported: Exported, tmp_path: Path) -> None:
    whole = exported("static", include=("tflite",))[1].path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 3], whole[:2000] + bytes(2000) + whole[4000:]):
        (tmp_path / "größe.tflite").write_bytes(content)
        with pytest.raises(InputError, match=r"größe\.tflite: ") as caught:
            DetectMultiBackend(tmp_path / "größe.tflite", data=None)(torch.zeros(1, 3, 64, 64))
        assert "\n" not in str(caught.value)


def _equals(backend: DetectMultiBackend, weights: Path, hw: tuple[int, int], pictures: int = 1) -> None:
    images = torch.rand(pictures, 3, *hw, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(backend(images), load_model(weights)[0](images)[0], rtol=1e-4, atol=1e-3)
