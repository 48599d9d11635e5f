"""Everything around the formats: what goes wrong, the table, the scripts that use the files, benchmarks."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import detect
import export
import val
from tools import benchmark as benchmarks
from utils.checkpoint import load_checkpoint, load_model, save_checkpoint
from utils.config.export_options import EXPORT_FORMATS, UNAVAILABLE_FORMATS
from utils.config.options import DetectOptions, ExportOptions, ValOptions
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.export import ExportResult, export_checkpoint, format_results
from utils.export.base import Exporter, draft
from utils.export.formats import EXPORTERS
from utils.export.onnx import OnnxExporter
from utils.inference.autoshape import AutoShape
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.weights import build_predictor

Exported = Callable[..., list[Any]]
Tiny = Callable[[str], Path]


@pytest.fixture(scope="module")
def ants(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """Data yaml of the tiny models' classes."""
    return make_dataset(tmp_path_factory.mktemp("ants"), nc=3, names=("ant", "bee", "甲虫"))


def test_one_failing_format_does_not_stop_the_others(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")

    def fail(*_: Any) -> list[str]:
        raise RuntimeError("cannot\nand a long story")

    monkeypatch.setattr(OnnxExporter, "write", fail)
    source, first, second = exported("static", include=("onnx", "torchscript"))
    by_name = {row.format: row for row in (source, first, second)}
    assert by_name["torchscript"].made and not by_name["onnx"].made
    folder = by_name["torchscript"].path.parent
    assert sorted(path.name for path in folder.iterdir()) == ["static.onnx.log", "static.torchscript"]
    assert by_name["onnx"].note == f"cannot; full text in {folder / 'static.onnx.log'}"
    assert "and a long story" in (folder / "static.onnx.log").read_text(encoding="utf-8")


def test_a_file_that_computes_something_else_is_not_kept(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.export.export_network import ExportHead

    original = ExportHead._boxes
    monkeypatch.setattr(ExportHead, "_boxes", lambda self, level, y: original(self, level, y) * 1.01)
    row = exported("static", include=("torchscript",))[1]
    assert not row.made
    assert "differs from PyTorch by" in row.note


def test_a_missing_package_is_named_before_any_work(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else True)
    row = exported("static", include=("onnx",))[1]
    assert (row.made, row.impossible, row.note) == (False, True, "package onnx is missing: pip install onnx")


def test_a_form_that_a_format_cannot_run_is_named(exported: Exported) -> None:
    row = exported("dynamic", include=("torchscript",), dynamic_form="A")[1]
    assert row.note == "--dynamic-form A does not run as torchscript; possible are B, F, M"


def test_a_folder_that_cannot_be_written_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file/below", Path("/proc")):
        if output == Path("/proc") and not output.exists():
            continue
        with pytest.raises(InputError, match=rf"{output}: cannot .* --output|--output {output}: cannot be made"):
            export.main(ExportOptions(weights=(str(tiny("static")),), include=("torchscript",), output=str(output)))


def test_the_exit_code_tells_whether_all_was_made(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ExportOptions(
        weights=(str(tiny("static")),), include=("torchscript",), imgsz=(64,), output=str(tmp_path), inplace=True
    )
    assert export.main(options) == 0
    monkeypatch.setattr(
        export, "export_checkpoint", lambda *_: [ExportResult(format="pytorch"), ExportResult(format="onnx", note="x")]
    )
    assert export.main(options) == 1


def test_the_table_leaves_out_columns_without_figures() -> None:
    rows = [ExportResult(format="pytorch", ms=12.34), ExportResult(format="onnx", note="no")]
    assert format_results(rows) == [
        "format   file    ms",
        "pytorch  -     12.3  not made:",
        "onnx     -        -  not made: no",
    ]


@pytest.fixture
def onnx_file(exported: Exported) -> Path:
    pytest.importorskip("onnxruntime")
    row = exported("static", include=("onnx",))[1]
    assert row.made, row.note
    return row.path


def test_val_scores_an_exported_file_as_it_scores_the_checkpoint(
    exported: Exported, tiny: Tiny, ants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    path = exported("static", include=("onnx",), dynamic=True)[1].path
    monkeypatch.setattr("utils.evaluation.observers.plot_batch", lambda *_: None)
    monkeypatch.setattr(val, "save_plots", lambda *_: None)
    figures = []
    for weights in (tiny("static"), path):
        options = ValOptions(
            weights=(str(weights),), data=str(ants), imgsz=64, workers=0, device="cpu", project=str(tmp_path)
        )
        result = val.evaluate_detector(options).result
        figures.append((result.map50, result.map, result.detections))
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert figures[0][2] > 100


def test_val_scores_a_file_of_one_size_with_square_images(
    onnx_file: Path, ants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("utils.evaluation.observers.plot_batch", lambda *_: None)
    monkeypatch.setattr(val, "save_plots", lambda *_: None)
    given = {"weights": (str(onnx_file),), "data": str(ants), "workers": 0, "device": "cpu"}
    caplog.set_level(logging.INFO, "utils")
    assert val.evaluate_detector(ValOptions(**given, project=str(tmp_path / "unasked"))).result.images == 4
    assert "input 1x3x64x64" in caplog.text and "running at that size" not in caplog.text
    assert val.evaluate_detector(ValOptions(**given, imgsz=320, project=str(tmp_path))).result.images == 4
    assert caplog.text.count("takes images of 64 x 64 only: running at that size") == 1
    assert "image at batch 32, 64 px" in caplog.text
    assert json.loads((tmp_path / "exp/metrics.json").read_text())["settings"]["imgsz"] == 64


def test_a_file_with_free_axes_is_used_at_the_size_of_its_export(
    exported: Exported, tiny: Tiny, ants: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    path = exported("static", include=("onnx",), dynamic=True, imgsz=(64, 96))[1].path
    caplog.set_level(logging.INFO, "utils")
    assert build_predictor(DetectOptions(weights=(str(path),), device="cpu")).imgsz == (64, 96)
    assert "image size 64 x 96, that of the model file" in caplog.text
    assert build_predictor(DetectOptions(weights=(str(path),), device="cpu", imgsz=(128,))).imgsz == (128, 128)
    assert AutoShape(DetectMultiBackend(path)).imgsz == (64, 96)
    assert "at image size 64 x 96 unless size= sets another" in caplog.text
    options = ValOptions(weights=(str(path),), data=str(ants), device="cpu")
    assert val.size_of(options, val.open_subject(options, options.weights).model) == 96


def test_an_export_takes_the_size_of_the_checkpoint_and_passes_it_on(tiny: Tiny, ants: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny("dynamic"))
    checkpoint.imgsz = 96
    save_checkpoint(tmp_path / "of96.pt", checkpoint)
    options = ExportOptions(include=("torchscript", "static"), data=str(ants), output=str(tmp_path / "out"))
    rows = export_checkpoint(tmp_path / "of96.pt", options, torch.device("cpu"))
    assert open_exported(rows[1].path, torch.device("cpu")).imgsz == (96, 96)
    assert load_model(rows[2].path)[0].imgsz == (96, 96)


@pytest.mark.parametrize("dnn", [False, True])
def test_detect_takes_an_exported_file(onnx_file: Path, ants: Path, tmp_path: Path, dnn: bool) -> None:
    options = DetectOptions(
        weights=(str(onnx_file),), source=str(ants.parent / "images/val"), device="cpu", project=str(tmp_path / "out"),
        dnn=dnn, save_txt=True, nosave=True, imgsz=(64,),
    )  # fmt: skip
    detect.main(options)
    assert len(list((tmp_path / "out/exp/labels").iterdir())) == 4


def test_autoshape_takes_an_exported_file(onnx_file: Path, tiny: Tiny, ants: Path) -> None:
    image = ants.parent / "images/val/0.png"
    by_file, by_torch = (
        AutoShape(DetectMultiBackend(w), verbose=False)(image, 64) for w in (onnx_file, tiny("static"))
    )
    assert by_file.names == ["ant", "bee", "甲虫"]
    torch.testing.assert_close(by_file.xyxy[0], by_torch.xyxy[0], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": True}, "--augment needs a .pt file"),
        ({"weights": ("a.pt", "b.onnx")}, "an ensemble is made of .pt files"),
        ({"weights": ("a.torchscript",), "dnn": True}, "--dnn is for .onnx files"),
        ({"weights": ("a.onxx",)}, "not a model file by its name"),
    ],
)
def test_what_does_not_go_together_is_named(options: dict[str, Any], message: str, onnx_file: Path) -> None:
    given = {"weights": (str(onnx_file),), **options}
    with pytest.raises(InputError, match=message):
        build_predictor(DetectOptions(device="cpu", **given))


def test_names_of_another_yaml_are_warned_about(
    onnx_file: Path, make_dataset: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_dataset(tmp_path / "other", nc=3)
    model = DetectMultiBackend(onnx_file, data=other)
    assert model.names == ["ant", "bee", "甲虫"]
    assert "its own class names differ from those in" in caplog.text


def test_benchmarks_write_table_csv_and_plot(tiny: Tiny, ants: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = benchmarks.BenchmarkOptions(
        weights=str(tiny("static")), data=str(ants), imgsz=64, include=("onnx", "torchscript"), project=str(tmp_path),
        hard_fail=0.0,
    )  # fmt: skip
    assert benchmarks.main(options) == 0
    with (tmp_path / "exp/benchmarks.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["format"] for row in rows] == ["pytorch", "torchscript", "onnx"]
    assert all(float(row["map"]) == pytest.approx(float(rows[0]["map"]), abs=1e-3) for row in rows)
    assert (tmp_path / "exp/benchmarks.png").stat().st_size > 1000
    assert "mAP@.5:.95" in (tmp_path / "exp/benchmarks.txt").read_text()


def test_hard_fail_objects_to_failures_and_to_a_low_map_but_not_to_missing_packages() -> None:
    rows = [
        ExportResult(format="pytorch", path=Path("a"), map=0.3), ExportResult(format="onnx", path=Path("b"), map=0.1),
        ExportResult(format="pt2", note="broken"), ExportResult(format="coreml", note="no package", impossible=True),
    ]  # fmt: skip
    assert benchmarks.shortfalls(rows, 0.2) == ["pt2: broken", "onnx: mAP@.5:.95 0.100 is below 0.2"]


def test_a_file_that_does_not_run_here_is_in_the_tables_but_not_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pt").write_bytes(b"x" * 2_000_000)
    rows = [
        ExportResult(format="pytorch", path=tmp_path / "a.pt", ms=1.0),
        ExportResult(format="coreml", path=tmp_path / "a.pt", note="Core ML runs on macOS only"),
    ]
    drawn: list[Any] = []
    monkeypatch.setattr(benchmarks, "plot_comparison", lambda names, *_: drawn.append(list(names)))
    benchmarks.write_benchmark_files(rows, tmp_path)
    assert drawn == [["pytorch"]]
    assert (rows[1].made, rows[1].ran) == (True, False)
    assert (tmp_path / "benchmarks.csv").read_text().splitlines()[2] == "coreml,a.pt,2,,,,,Core ML runs on macOS only"
    assert format_results(rows)[2].split(maxsplit=4) == ["coreml", "a.pt", "2.0", "-", "Core ML runs on macOS only"]


def test_what_is_not_known_of_a_format_is_a_gap_with_a_dash_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    rows = [
        ExportResult(
            format="pytorch", path=tmp_path / "a.pt", ms=1.0, map50=0.5, map=0.0
        ),  # a true zero is written as such
        ExportResult(format="onnx", path=tmp_path / "a.pt", ms=2.0),
    ]
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        benchmarks, "plot_comparison", lambda _, panels, *__: drawn.update({p.title: p for p in panels})
    )
    benchmarks.write_benchmark_files(rows, tmp_path)
    assert drawn["mAP@.5:.95"].texts == ["0.000", "-"]
    assert drawn["mAP@.5:.95"].values == [0.0, 0.0]
    assert drawn["ms per image"].texts == ["1.0", "2.0"]


@pytest.mark.parametrize("exporter", EXPORTERS[: len(EXPORT_FORMATS)], ids=lambda exporter: exporter.name)
def test_one_image_a_call_is_computed_with_its_own_kernel_where_the_runtime_is_fast_at_that(
    exporter: Exporter,
) -> None:
    constant = exporter.name in ("engine", "coreml", "saved_model", "pb", "tflite")
    computed = exporter.name in ("onnx", "openvino", "pt2", "aoti", "ncnn")
    several = "M" if constant else "A1" if exporter.name == "ncnn" else "B"
    assert exporter.form(ExportOptions()).value == ("A1" if computed else several)
    assert exporter.form(ExportOptions(dynamic_axes=("height",))).value == ("A1" if computed else several)
    for options in (ExportOptions(batch_size=2), ExportOptions(dynamic=True)):
        assert exporter.form(options).value == several


def test_every_format_that_can_be_asked_for_has_one_exporter_in_the_order_of_the_documentation() -> None:
    assert tuple(exporter.name for exporter in EXPORTERS) == (*EXPORT_FORMATS, *UNAVAILABLE_FORMATS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_draft_behind(lively_weights: Path, tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "export.py", "--weights", str(lively_weights), "--output", str(tmp_path / "out"),
         "--include", "torchscript", "onnx", "--imgsz", "64"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while process.poll() is None and not list((tmp_path / "out").glob(".export-*")):
        time.sleep(0.01)
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == 128 + number, output
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
    assert "Traceback" not in output


def test_an_export_never_takes_the_place_of_its_checkpoint(lively_weights: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.pt"):
        shutil.copy(lively_weights, tmp_path / name)
    os.link(tmp_path / "b.pt", tmp_path / "b.onnx")
    before = lively_weights.read_bytes()
    for weights in ("a.onnx", "b.pt"):
        rows = export_checkpoint(tmp_path / weights, ExportOptions(include=("onnx",), imgsz=(64,)), torch.device("cpu"))
        assert "would overwrite the input" in rows[1].note and rows[1].path is None
    assert {(tmp_path / name).read_bytes() for name in ("a.onnx", "b.pt", "b.onnx")} == {before}


def test_a_folder_with_other_files_is_not_replaced_by_an_export(tmp_path: Path) -> None:
    place = tmp_path / "best_openvino_model"
    place.mkdir()
    (place / "best.xml").write_text("old")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which is not of this export"), draft(place) as written:
        written.mkdir()
        (written / "best.xml").write_text("new")
    assert (place / "notes.txt").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == [place.name]
    (place / "notes.txt").unlink()
    with draft(place) as written:
        written.mkdir()
        (written / "best.xml").write_text("new")
    assert (place / "best.xml").read_text() == "new"
