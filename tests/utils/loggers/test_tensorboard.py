"""What the event file holds, read back with TensorBoard itself."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.routing import routing_stats
from models.yolo import Model
from utils.core.callbacks import FitEpochEnd, TrainEnd, TrainStart, ValEnd
from utils.core.errors import InputError
from utils.core.image import write_image
from utils.loggers import TensorBoardLogger

pytest.importorskip("tensorboard")


def start(folder: Path, resumed: int = 0) -> TrainStart:
    return TrainStart(save_dir=folder, epochs=3, names=("a",), labels=np.zeros((0, 5)), resumed_epoch=resumed)


def epoch(logger: TensorBoardLogger, number: int, value: float) -> None:
    stats = routing_stats("10", torch.tensor([[1.0, 0.0], [0.5, 0.5]]), temperature=4.0)
    logger.on_val_end(ValEnd(epoch=number, metrics={}, per_class_ap={}, routing=[stats]))
    logger.on_fit_epoch_end(FitEpochEnd(epoch=number, row={"metrics/mAP_0.5": value, "routing/10_entropy": 0.3}))


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_scalars_routing_and_images_are_written(tmp_path: Path) -> None:
    logger = TensorBoardLogger()
    logger.on_train_start(start(tmp_path))
    epoch(logger, 0, 0.25)
    epoch(logger, 1, 0.5)
    write_image(tmp_path / "results.png", np.full((4, 6, 3), (255, 0, 0), np.uint8))
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=2))
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("metrics/mAP_0.5")] == [(0, 0.25), (1, 0.5)]
    assert [e.value for e in events.Scalars("routing_10/mean_0")] == [0.75, 0.75]
    assert "routing/10_entropy" not in events.Tags()["scalars"]
    assert events.Images("results")[0].width == 6


def test_a_resumed_run_hides_what_the_interrupted_epoch_had_written(tmp_path: Path) -> None:
    first = TensorBoardLogger()
    first.on_train_start(start(tmp_path))
    epoch(first, 0, 0.1)
    epoch(first, 1, 0.9)
    second = TensorBoardLogger()
    second.on_train_start(start(tmp_path, resumed=1))
    epoch(second, 1, 0.2)
    second.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=1))
    assert [(e.step, round(e.value, 4)) for e in read(tmp_path).Scalars("metrics/mAP_0.5")] == [(0, 0.1), (1, 0.2)]


def test_without_the_package_the_option_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"--tensorboard needs .* pip install tensorboard"):
        TensorBoardLogger()


def test_the_graph_of_the_model_is_shown_and_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = Model("yolov5n_dynamic.yaml", nc=2).train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    logger = TensorBoardLogger(model)
    logger.on_train_start(start(tmp_path))
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=0))
    graph = read(tmp_path).Graph()
    assert sum("Conv" in node.name for node in graph.node) > 50
    assert model.training and torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_cannot_be_traced_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Model("yolov5n.yaml", nc=2)
    model.forward = lambda x: {"x": object()}  # type: ignore[method-assign]
    logger = TensorBoardLogger(model)
    logger.on_train_start(start(tmp_path))
    assert "the graph of the model cannot be shown" in caplog.text
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=0))
