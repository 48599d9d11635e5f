"""v6.1's data set, loader and tools, called as training and scoring scripts call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from utils.datasets import (
    LoadImagesAndLabels,
    autosplit,
    create_dataloader,
)
from utils.general import scale_coords, xywh2xyxy


@pytest.fixture
def data(tmp_path: Path, make_dataset: Callable[..., Path]) -> Path:
    """Yaml of five training images of 48 x 64 px, two classes."""
    return make_dataset(tmp_path / "set", n_train=5, n_val=2, hw=(48, 64))


def test_a_scoring_loop_gets_back_to_the_labels(data: Path) -> None:
    folder = data.parent / "images/train"
    loader, dataset = create_dataloader(str(folder), 64, 2, 32, pad=0.5, rect=True, workers=0, prefix="val: ")
    assert len(loader) == 3 and len(dataset) == 5
    seen = 0
    for images, targets, paths, shapes in loader:
        assert images.dtype == torch.uint8 and images.shape[1] == 3 and images.shape[2] < images.shape[3]
        height, width = images.shape[2:]
        for i, path in enumerate(paths):
            rows = targets[targets[:, 0] == i, 1:]
            boxes = xywh2xyxy(rows[:, 1:] * torch.tensor([width, height, width, height]))
            scale_coords((height, width), boxes, shapes[i][0], shapes[i][1])
            own = dataset.labels[dataset.img_files.index(path)]
            wanted = xywh2xyxy(own[:, 1:] * (64, 48, 64, 48))
            np.testing.assert_allclose(boxes.numpy(), wanted, atol=0.02)
            seen += 1
    assert seen == 5


def test_training_images_are_augmented_anew_in_every_pass_and_follow_the_seed(data: Path) -> None:
    hyp = yaml.safe_load(Path("data/hyps/hyp.scratch-low.yaml").read_text(encoding="utf-8"))

    def first() -> torch.Tensor:
        return next(iter(loader))[0]

    loader, dataset = create_dataloader(
        data.parent / "images/train", 64, 8, 32, hyp=hyp, augment=True, workers=0, shuffle=True
    )  # fmt: skip
    assert dataset.mosaic and dataset.n == 5 and loader.batch_size == 5
    torch.manual_seed(1)
    one, two = first(), first()
    torch.manual_seed(1)
    assert torch.equal(first(), one) and not torch.equal(one, two)


def test_what_scripts_read_from_the_data_set(data: Path) -> None:
    dataset = LoadImagesAndLabels(str(data.parent / "images/train"), 64, 2, rect=True)
    assert dataset.shapes.tolist() == [[64, 48]] * 5 and dataset.batch.tolist() == [0, 0, 1, 1, 2]
    assert [Path(name).name for name in dataset.label_files] == [f"{i}.txt" for i in range(5)]
    assert all(rows.shape == (1, 5) for rows in dataset.labels) and dataset.hyp["lr0"] == 0.01
    dataset.indices = [3, 3]
    assert dataset[0][2] == dataset[1][2] == dataset.img_files[3]


def test_four_images_become_one(data: Path) -> None:
    loader, _ = create_dataloader(data.parent / "images/train", 64, 4, 32, augment=True, workers=0, quad=True)
    images, targets, paths, shapes = next(iter(loader))
    assert images.shape == (1, 3, 128, 128) and len(paths) == 1 and shapes == (None,)
    assert set(targets[:, 0].tolist()) <= {0.0}


def test_each_process_gets_its_share(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.is_available", lambda: True)
    paths = []
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda *_, rank=rank: rank)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: 2)
        loader, _ = create_dataloader(data.parent / "images/train", 64, 2, 32, rank=rank, workers=0)
        paths.append({path for batch in loader for path in batch[2]})
    assert len(paths[0] | paths[1]) == 5 and len(paths[0]) == len(paths[1]) == 3


# Tools ----------------------------------------------------------------------------------------------------------------


def test_images_are_dealt_out_as_lists(data: Path) -> None:
    folder = data.parent / "images"
    (folder.parent / "labels/train/0.txt").unlink()
    autosplit(folder, (0.5, 0.5, 0.0), annotated_only=True)
    lists = [(folder.parent / f"autosplit_{name}.txt") for name in ("train", "val", "test")]
    lines = [line for file in lists[:2] if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 6 and all((folder.parent / line).is_file() for line in lines)
    assert not lists[2].exists()
