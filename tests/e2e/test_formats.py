"""COCO and VOC annotations as the set of a training run and of val.py, without conversion."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import train
import val
from tools.convert import ConvertOptions, convert
from utils.config.cli import run_script
from utils.config.dataset_spec import DatasetSpec
from utils.config.options import TrainOptions

SMALL = {"--epochs": "1", "--batch-size": "4", "--imgsz": "64", "--workers": "0", "--device": "cpu"}


@pytest.fixture(scope="module")
def forms(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data yamls of the same set in all formats."""
    found = {"yolo": toy}
    for kind in ("coco", "voc"):
        folder = tmp_path_factory.mktemp(kind) / "set"
        found[kind] = convert(ConvertOptions(source=str(toy), to=kind, output=str(folder), copy_images=True))
    return found


def scores(weights: Path, data: Path, project: Path, **more: object) -> tuple[float, ...]:
    options = {"imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "project": str(project)}
    return val.run(weights=str(weights), data=str(data), **{**options, **more})[0]


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_training_on_annotations_equals_training_on_label_files(
    training, results, forms: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    rows = [
        results(training(tmp_path / name, files=False, data=str(forms[name])).save_dir)[-1] for name in ("yolo", kind)
    ]
    assert len(rows[0]) > 10
    for key, value in rows[0].items():
        if "seconds" in key:
            continue
        assert float(rows[1][key]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), key


def test_a_yaml_with_nothing_but_splits_is_enough_for_coco(training, forms: dict[str, Path], tmp_path: Path) -> None:
    data = forms["coco"].parent / "bare.yaml"
    entries = {split: f"annotations/instances_{split}.json" for split in ("train", "val")}
    data.write_text(yaml.safe_dump(entries), encoding="utf-8")
    session = training(tmp_path / "runs", data=str(data))
    assert session.model.names == ["red", "green"]
    assert DatasetSpec.load(str(data)).category_ids == (1, 2)


@pytest.mark.usefixtures("without_images")
@pytest.mark.parametrize("more", [{}, {"single_cls": True}])
def test_val_gives_the_same_figures_for_all_formats(
    eager_weights: Path, forms: dict[str, Path], tmp_path: Path, more: dict[str, bool]
) -> None:
    expected = scores(eager_weights, forms["yolo"], tmp_path / "runs", **more)
    for kind in ("coco", "voc"):
        assert scores(eager_weights, forms[kind], tmp_path / "runs", **more) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.evaluation.observers.plot_batch", lambda *_: None)
    monkeypatch.setattr(val, "save_plots", lambda *_: None)


@pytest.mark.usefixtures("log_handlers_restored")
@pytest.mark.parametrize(
    ("kind", "file", "replacement", "part"),
    [
        ("coco", "annotations/instances_train.json", ('"images"', '"image"'), "no 'images'; did you mean 'image'"),
        ("coco", "annotations/instances_val.json", ("]", ""), "instances_val.json:1: not valid json"),
        ("coco", "annotations/instances_train.json", ('"category_id": 2', '"category_id": 7'), "category_id 7"),
        ("voc", "Annotations/train/0.xml", ("red", "rde"), "0.xml:10: 'rde'; did you mean 'red'?"),
    ],
)
def test_wrong_annotations_stop_train_with_one_line(
    toy: Path, tmp_path: Path, capfd, kind: str, file: str, replacement: tuple[str, str], part: str
) -> None:
    data = convert(ConvertOptions(source=str(toy), to=kind, output=str(tmp_path / "set"), copy_images=True))
    path = data.parent / file
    path.write_text(path.read_text(encoding="utf-8").replace(*replacement), encoding="utf-8")
    small = [word for pair in SMALL.items() for word in pair]
    argv = ["--cfg", "yolov5n.yaml", "--data", str(data), *small, "--project", str(tmp_path / "runs")]
    assert run_script(train.main, TrainOptions, argv) == 1
    out = "".join(capfd.readouterr()).replace("\r", "\n")
    lines = [line for line in out.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert part in lines[0]
    assert "Traceback" not in out
    assert not (tmp_path / "runs").exists()
