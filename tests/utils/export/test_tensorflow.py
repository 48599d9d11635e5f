"""The TensorFlow family without its environments (with them: test_tflite_files.py, test_tensorflow_files.py)."""

from __future__ import annotations

import json
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

Exported = Callable[..., list[Any]]
Tiny = Callable[[str], Path]


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
