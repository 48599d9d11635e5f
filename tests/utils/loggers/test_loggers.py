"""Loggers: results.csv, the line per epoch, the images of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.core.callbacks import BatchEnd, FitEpochEnd, TrainEnd, TrainStart
from utils.loggers import ConsoleLogger, PlotsLogger, ResultsCsv
from utils.loggers.results_csv import V61_COLUMNS

ROW = {name: 0.5 for name in V61_COLUMNS if name != "epoch"} | {"temperature": 31.0, "seconds": 2.25}


def start(folder: Path, resumed_epoch: int = 0) -> TrainStart:
    labels = np.array([[0, 0.5, 0.5, 0.2, 0.2]])
    return TrainStart(save_dir=folder, epochs=5, names=("a", "b"), labels=labels, resumed_epoch=resumed_epoch)


def run(folder: Path, epochs: range, resumed_epoch: int = 0, row: dict[str, float] = ROW) -> list[str]:
    """Log some epochs as a run would and return the lines of the file."""
    results = ResultsCsv()
    results.on_train_start(start(folder, resumed_epoch))
    for epoch in epochs:
        results.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row=row))
    return (folder / "results.csv").read_text(encoding="utf-8").splitlines()


def test_the_columns_of_v61_come_first_then_ours(tmp_path: Path) -> None:
    header = run(tmp_path, range(1))[0].split(",")
    assert header == [*V61_COLUMNS, "temperature", "seconds"]


def test_scripts_written_for_v61_find_their_columns(tmp_path: Path) -> None:
    header = run(tmp_path, range(1))[0]
    assert header.startswith(
        "epoch,train/box_loss,train/obj_loss,train/cls_loss,metrics/precision,metrics/recall,metrics/mAP_0.5,"
        "metrics/mAP_0.5:0.95,val/box_loss,val/obj_loss,val/cls_loss,x/lr0,x/lr1,x/lr2,"
    )


def test_every_epoch_is_in_the_file_at_once(tmp_path: Path) -> None:
    results = ResultsCsv()
    results.on_train_start(start(tmp_path))
    for epoch in range(3):
        results.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row=ROW))
        lines = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()
        assert lines[-1] == f"{epoch}," + "0.5," * 13 + "31,2.25"


def test_a_figure_that_an_epoch_lacks_leaves_its_cell_empty(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if not key.startswith("val/")}
    cells = dict(zip(V61_COLUMNS, run(tmp_path, range(1), row=row)[1].split(",")))
    assert cells["val/box_loss"] == ""
    assert cells["x/lr0"] == "0.5"


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    run(tmp_path, range(4))
    assert len(run(tmp_path, range(2))) == 3


def test_resuming_cuts_the_rows_from_the_resumed_epoch_on(tmp_path: Path) -> None:
    run(tmp_path, range(4))
    lines = run(tmp_path, range(2, 5), resumed_epoch=2)
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2", "3", "4"]


def test_resuming_cuts_a_line_broken_by_a_crash(tmp_path: Path) -> None:
    run(tmp_path, range(2))
    with (tmp_path / "results.csv").open("a", encoding="utf-8") as stream:
        stream.write("2,0.5,0.")
    lines = run(tmp_path, range(3, 4), resumed_epoch=3)
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "3"]


def test_resuming_keeps_the_header_and_names_what_it_has_no_column_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = run(tmp_path, range(1))
    after = run(tmp_path, range(1, 2), resumed_epoch=1, row={**ROW, "new": 1.0})
    assert after[:2] == before
    assert "no column for new" in caplog.text


def test_resuming_without_a_file_starts_one(tmp_path: Path) -> None:
    assert len(run(tmp_path, range(2, 3), resumed_epoch=2)) == 2


def test_the_console_gets_one_line_per_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    console = ConsoleLogger()
    console.on_train_start(start(tmp_path))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        console.on_fit_epoch_end(FitEpochEnd(epoch=1, row=ROW))
    (line,) = caplog.messages
    assert line.startswith("epoch 2/5  box 0.5000  obj 0.5000  cls 0.5000  P 0.500")
    assert line.endswith("T 31  s 2.2  0 s left")


def test_the_end_names_the_run_folder_and_the_best_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    best = tmp_path / "weights/best.pt"
    ConsoleLogger().on_train_end(TrainEnd(save_dir=tmp_path, best=best, epochs_run=5))
    ConsoleLogger().on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=1))
    assert [record.getMessage() for record in caplog.records] == [
        f"5 epochs done, results in {tmp_path}",
        f"best checkpoint: {best}",
        f"1 epoch done, results in {tmp_path}",
    ]


def test_images_of_labels_first_batches_and_results_are_written(tmp_path: Path) -> None:
    run(tmp_path, range(2))
    plots = PlotsLogger()
    plots.on_train_start(start(tmp_path))
    batch = SimpleNamespace(images=torch.zeros(1, 3, 64, 64), targets=torch.zeros(0, 6), paths=["a.jpg"])
    for index in range(5):
        plots.on_train_batch_end(BatchEnd(epoch=0, index=index, iteration=index, batch=batch, losses=(0.0,)))
    plots.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=2))
    batches = {f"train_batch{i}.jpg" for i in range(3)}
    names = {"labels.jpg", "labels_correlogram.jpg", "results.png", "results.csv"} | batches
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_resumed_run_keeps_the_images_of_its_beginning(tmp_path: Path) -> None:
    plots = PlotsLogger()
    plots.on_train_start(start(tmp_path, resumed_epoch=2))
    plots.on_train_batch_end(BatchEnd(epoch=2, index=0, iteration=0, batch=None, losses=(0.0,)))
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_an_epoch_draws_no_results(tmp_path: Path) -> None:
    PlotsLogger().on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=0))
    assert list(tmp_path.iterdir()) == []
