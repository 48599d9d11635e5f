"""Weights & Biases: what the logger tells a stand-in for the package, and the package itself where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.config.train_slices import LoggerOptions
from utils.core.callbacks import EpochStart, FitEpochEnd, TrainEnd, TrainStart
from utils.core.errors import InputError
from utils.core.image import write_image
from utils.datasets.labels.records import LabelRecord
from utils.datasets.loader import Batch
from utils.loggers import WandbLogger


class Artifact:
    def __init__(self, name: str, type: str, metadata: Any = None) -> None:
        self.name, self.type, self.metadata = name, type, metadata
        self.files: dict[str, str] = {}

    def add_file(self, path: str, name: str = "", **_: Any) -> None:
        self.files[name or Path(path).name] = path


class Package(SimpleNamespace):
    """Stands for the package, and for the one run that is made with it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Artifact=Artifact, Settings=dict, Image=lambda array, **given: {"array": array, **given})
        self.id, self.dir = "abc", str(folder / "wandb/offline-run-2026_1-abc/files")
        self.settings: dict[str, Any] = {}
        self.rows: list[tuple[dict[str, Any], int | None]] = []
        self.artifacts: list[tuple[Artifact, Any]] = []
        self.finished = False

    def init(self, **settings: Any) -> Package:
        self.settings = settings
        Path(self.dir).mkdir(parents=True, exist_ok=True)
        return self

    def log(self, row: dict[str, Any], step: int | None = None) -> None:
        self.rows.append((row, step))

    def log_artifact(self, artifact: Artifact, aliases: Any = None) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    stand_in = Package(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)  # type: ignore[arg-type]
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    return stand_in


def options(**given: Any) -> TrainOptions:
    return TrainOptions(wandb=True, **given)


def logger_of(given: TrainOptions, labels: dict[str, list[LabelRecord]]) -> WandbLogger:
    return WandbLogger(LoggerOptions.of(given), to_plain(given), Hyp(), labels)


def start(folder: Path, resumed: int = 0) -> TrainStart:
    return TrainStart(save_dir=folder, epochs=3, names=("ant", "bee"), labels=np.zeros((0, 5)), resumed_epoch=resumed)


def one_epoch(logger: WandbLogger, epoch: int = 0, epochs: int = 3) -> None:
    batch = Batch(
        torch.zeros(1, 3, 40, 80, dtype=torch.uint8), torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5]]), ["a.png"], []
    )
    logger.on_train_epoch_start(EpochStart(epoch=epoch, epochs=epochs))
    logger.on_batch(0, batch, [torch.tensor([[8.0, 4.0, 40.0, 20.0, 0.9, 0.0], [0.0, 0.0, 1.0, 1.0, 0.1, 0.0]])])
    logger.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row={"metrics/mAP_0.5": 0.25}))


def test_the_run_is_offline_in_the_run_folder_and_belongs_to_the_entity(package: Package, tmp_path: Path) -> None:
    logger_of(options(entity="team", imgsz=320), {}).on_train_start(start(tmp_path))
    told = package.settings
    assert (told["mode"], told["dir"], told["entity"], told["id"]) == ("offline", str(tmp_path), "team", None)
    assert (told["config"]["imgsz"], told["config"]["hyp"]["lr0"]) == (320, 0.01)


def test_a_row_has_the_epoch_as_its_step(package: Package, tmp_path: Path) -> None:
    logger = logger_of(options(bbox_interval=0), {})
    logger.on_train_start(start(tmp_path))
    one_epoch(logger, 2)
    assert package.rows == [({"metrics/mAP_0.5": 0.25}, 2)]


@pytest.mark.parametrize(
    ("interval", "epochs", "shown"),
    [(-1, 3, [0, 1, 2]), (-1, 30, [2, 5, 8, 11, 14, 17, 20, 23, 26, 29]), (2, 5, [1, 3, 4]), (0, 5, [])],
)
def test_images_with_boxes_come_every_so_many_epochs_and_at_the_end(
    package: Package, tmp_path: Path, interval: int, epochs: int, shown: list[int]
) -> None:
    logger = logger_of(options(bbox_interval=interval), {})
    logger.on_train_start(start(tmp_path))
    for epoch in range(epochs):
        one_epoch(logger, epoch, epochs)
    assert [step for row, step in package.rows if "bbox" in row] == shown


def test_boxes_are_fractions_of_the_image_and_only_the_sure_ones(package: Package, tmp_path: Path) -> None:
    logger = logger_of(options(), {})
    logger.on_train_start(start(tmp_path))
    one_epoch(logger)
    (image,) = package.rows[0][0]["bbox"]
    (found,) = image["boxes"]["predictions"]["box_data"]
    (true,) = image["boxes"]["ground_truth"]["box_data"]
    assert found["position"] == {"minX": 0.1, "maxX": 0.5, "minY": 0.1, "maxY": 0.5}
    assert (found["box_caption"], found["class_id"], true["box_caption"]) == ("ant 0.90", 0, "bee")
    assert true["position"] == {"minX": 0.25, "maxX": 0.75, "minY": 0.25, "maxY": 0.75}


@pytest.mark.parametrize(("given", "splits"), [(False, []), (True, ["train", "val"]), ("val", ["val"])])
def test_the_data_set_is_an_artifact_when_asked_for(
    package: Package, tmp_path: Path, given: Any, splits: list[str]
) -> None:
    boxes = np.array([[1, 0.5, 0.5, 0.25, 0.125]], np.float32)
    records = [LabelRecord(image=Path("images/a.png"), label=None, hw=(8, 8), boxes=boxes)]
    logger = logger_of(options(upload_dataset=given), {"train": records, "val": records})
    logger.on_train_start(start(tmp_path))
    assert [artifact.name for artifact, _ in package.artifacts] == splits
    for artifact, _ in package.artifacts:
        assert list(artifact.files) == ["images/000000_a.png", "labels/000000_a.txt"]
        assert artifact.files["images/000000_a.png"] == str(Path("images/a.png"))
        label = Path(artifact.files["labels/000000_a.txt"])
        assert label.read_text(encoding="utf-8") == "1 0.5 0.5 0.25 0.125\n"
        assert label.is_relative_to(tmp_path)
        assert artifact.metadata == {"names": ["ant", "bee"]}


def test_at_the_end_come_the_images_and_the_best_checkpoint(package: Package, tmp_path: Path) -> None:
    logger = logger_of(options(), {})
    logger.on_train_start(start(tmp_path))
    write_image(tmp_path / "results.png", np.full((4, 6, 3), (255, 0, 0), np.uint8))  # blue
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=tmp_path / "best.pt", epochs_run=1))
    assert package.rows[0][0]["plots/results"]["array"][0, 0].tolist() == [0, 0, 255]
    ((model, aliases),) = package.artifacts
    assert (model.name, model.files) == ("run_abc_model", {"best.pt": str(tmp_path / "best.pt")})
    assert aliases == ["latest", "best"]
    assert package.finished


def test_a_resumed_run_keeps_its_id(package: Package, tmp_path: Path) -> None:
    logger_of(options(), {}).on_train_start(start(tmp_path))
    logger_of(options(), {}).on_train_start(start(tmp_path, resumed=1))
    assert package.settings["id"] == "abc"


def test_without_the_package_the_option_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"--wandb needs .* pip install wandb"):
        logger_of(options(), {})


def test_the_real_package_writes_an_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    record = LabelRecord(image=tmp_path / "a.png", label=None, hw=(8, 8), boxes=np.zeros((0, 5), np.float32))
    logger = logger_of(options(upload_dataset="val"), {"val": [record]})
    logger.on_train_start(start(tmp_path))
    one_epoch(logger)
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=tmp_path / "a.png", epochs_run=1))
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    written = (run / f"run-{run.name.rpartition('-')[2]}.wandb").read_bytes()
    assert b"metrics/mAP_0.5" in written and b"images/000000_a.png" in written
    assert len(list((run / "files/media/images").glob("bbox_*.png"))) == 1
