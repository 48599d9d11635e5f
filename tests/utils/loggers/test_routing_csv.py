"""routing.csv and the warnings at the end of a run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models.routing import RoutingStats, routing_stats
from utils.core.callbacks import FitEpochEnd, TrainEnd, TrainStart, ValEnd
from utils.loggers import PlotsLogger, ResultsCsv, RoutingCsv
from utils.loggers.routing_csv import csv_table

USED = [[0.75, 0.25], [0.25, 0.75]]
COLLAPSED = [[0.0, 0.0, 1.0]] * 2


def layers(temperature: float | None = 1.0) -> list[RoutingStats]:
    return [
        routing_stats("10", torch.tensor(USED), temperature=temperature),
        routing_stats("14", torch.tensor(COLLAPSED), temperature=temperature),
    ]


def run(folder: Path, epochs: range, routing: Sequence[RoutingStats], resumed_epoch: int = 0) -> RoutingCsv:
    logger = RoutingCsv()
    logger.on_train_start(
        TrainStart(save_dir=folder, epochs=9, names=(), labels=np.zeros((0, 5)), resumed_epoch=resumed_epoch)
    )
    for epoch in epochs:
        logger.on_val_end(ValEnd(epoch=epoch, metrics={}, per_class_ap={}, routing=routing))
    return logger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "routing.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_each_epoch_has_a_row_per_layer(tmp_path: Path) -> None:
    run(tmp_path, range(2), layers(34))
    assert [(row["epoch"], row["layer"]) for row in rows(tmp_path)] == [
        ("0", "10"), ("0", "14"), ("1", "10"), ("1", "14"),
    ]  # fmt: skip


def test_the_figures_stand_under_their_names_and_missing_kernels_are_empty(tmp_path: Path) -> None:
    run(tmp_path, range(1), layers(34))
    first, second = rows(tmp_path)
    assert [first[name] for name in ("K", "T", "samples", "entropy", "spread")] == ["2", "34", "2", "0.562335", "0.25"]
    assert [first[f"dominant_{k}"] for k in range(3)] == [first[f"mean_{k}"] for k in range(3)] == ["0.5", "0.5", ""]
    assert [second[f"mean_{k}"] for k in range(3)] == ["0", "0", "1"]


def test_a_static_model_has_no_file(tmp_path: Path) -> None:
    run(tmp_path, range(2), [])
    assert list(tmp_path.iterdir()) == []


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    run(tmp_path, range(3), layers())
    run(tmp_path, range(1), layers())
    assert len(rows(tmp_path)) == 2


def test_resuming_keeps_the_older_epochs_and_cuts_those_that_run_again(tmp_path: Path) -> None:
    run(tmp_path, range(3), layers())
    run(tmp_path, range(2, 4), layers(), resumed_epoch=2)
    assert [row["epoch"] for row in rows(tmp_path)] == ["0", "0", "1", "1", "2", "2", "3", "3"]


def test_a_measurement_is_a_table_without_epochs() -> None:
    header, *body = csv_table(layers(None)).splitlines()
    assert header.startswith("layer,K,T,")
    assert [line[:7] for line in body] == ["10,2,,2", "14,3,,2"]


@pytest.mark.parametrize(("temperature", "warned"), [(34.0, False), (1.5, False), (1.0, True), (None, True)])
def test_idle_layers_are_named_once_and_only_when_the_temperature_is_at_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, temperature: float | None, warned: bool
) -> None:
    logger = run(tmp_path, range(3), layers(temperature))
    with caplog.at_level(logging.WARNING):
        logger.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=3))
    expected = ["dynamic layer 14: collapsed to kernel 2, mean weight 1.000: the other 2 are idle"]
    assert caplog.messages == (expected if warned else [])


def test_after_too_short_a_run_only_that_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = RoutingCsv(too_short=True)
    logger.on_train_start(TrainStart(save_dir=tmp_path, epochs=1, names=(), labels=np.zeros((0, 5))))
    logger.on_val_end(ValEnd(epoch=0, metrics={}, per_class_ap={}, routing=layers(1)))
    with caplog.at_level(logging.INFO):
        logger.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=1))
    assert caplog.messages == ["routing of the dynamic layers: the run is too short to assess it"]


def test_the_image_is_drawn_at_the_end(tmp_path: Path) -> None:
    run(tmp_path, range(2), layers())
    PlotsLogger().on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=2))
    assert {path.name for path in tmp_path.iterdir()} == {"routing.csv", "routing.png"}


def test_a_figure_that_is_nan_leaves_its_cell_of_the_results_empty(tmp_path: Path) -> None:
    results = ResultsCsv()
    results.on_train_start(TrainStart(save_dir=tmp_path, epochs=2, names=(), labels=np.zeros((0, 5))))
    for epoch, value in enumerate((float("nan"), 0.25)):
        results.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row={"routing/10_entropy": value}))
    lines = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["routing/10_entropy", "", "0.25"]
