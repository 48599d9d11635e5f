"""Training with the options that concern how images are fed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from utils.core.callbacks import BatchEnd
from utils.core.files import read_yaml
from utils.datasets.dataset import DetectionDataset, ItemKey, TrainItem


@pytest.mark.usefixtures("log_handlers_restored")
def test_quad_training_from_images_kept_on_disk(
    tmp_path: Path, make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(tmp_path / "data", n_train=6, n_val=2)
    batches: list[BatchEnd] = []
    backward: list[float] = []
    scale = torch.amp.GradScaler.scale

    def noted(scaler: torch.amp.GradScaler, loss: torch.Tensor) -> torch.Tensor:
        backward.append(loss.item())
        return scale(scaler, loss)

    monkeypatch.setattr(torch.amp.GradScaler, "scale", noted)
    monkeypatch.setattr(
        "utils.loggers.console.ConsoleLogger.on_train_batch_end", lambda _, event: batches.append(event)
    )
    train.run(
        data=str(data), cfg="yolov5n.yaml", imgsz=64, epochs=1, batch_size=4, workers=0, noautoanchor=True, quad=True,
        cache="disk", cache_dir=str(tmp_path / "kept"), project=str(tmp_path / "runs"),
    )  # fmt: skip
    assert [tuple(event.batch.images.shape) for event in batches] == [(1, 3, 128, 128)] * 2
    assert backward == pytest.approx([4 * sum(event.losses) for event in batches])
    assert len(list((tmp_path / "kept").glob("*.png.64.*.npy"))) == 6
    assert not list((tmp_path / "data" / "images").rglob("*.npy"))
    assert read_yaml(tmp_path / "runs/exp/opt.yaml")["quad"] is True


@pytest.mark.usefixtures("log_handlers_restored")
@pytest.mark.parametrize(
    ("options", "near", "told"),
    [
        ({}, True, ""),
        ({"mosaic_from": "all"}, False, ""),
        ({"mosaic_from": "all", "rect": True}, False, "--mosaic-from has no effect with --rect"),
    ],
)
def test_mosaics_take_their_images_from_where_they_are_told_to(
    tmp_path: Path, make_dataset: Callable[..., Path], options: dict[str, str | bool], near: bool, told: str,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = make_dataset(tmp_path / "data", n_train=6, n_val=2)
    asked: list[ItemKey] = []
    ask = DetectionDataset.__getitem__

    def noted(dataset: DetectionDataset, key: ItemKey) -> TrainItem:
        asked.extend([key] if dataset.augment else [])
        return ask(dataset, key)

    monkeypatch.setattr(DetectionDataset, "__getitem__", noted)
    train.run(
        data=str(data), cfg="yolov5n.yaml", imgsz=64, epochs=1, batch_size=4, workers=0, noautoanchor=True,
        project=str(tmp_path / "runs"), **options,
    )  # fmt: skip
    assert len(asked) == 6
    assert {bool(key.others) for key in asked} == {near}
    assert ("--mosaic-from has no effect" in caplog.text) == bool(told)
    assert told in caplog.text
