"""Batches: order, workers, sizes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from utils.config.dataset_spec import DatasetSpec
from utils.core.dist import Ranks
from utils.core.image import LetterboxInfo, write_image
from utils.datasets.dataset import DetectionDataset, ItemKey, TrainItem
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import (
    Batch,
    EpochSampler,
    QuadCollate,
    RankBatches,
    build_loader,
    collate,
    init_worker,
    sampler_of,
    usable_cpus,
)


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    """Five noisy images with 0 to 4 boxes."""
    rng = np.random.default_rng(0)
    records = []
    for n in range(5):
        path = tmp_path / f"{n}.png"
        write_image(path, rng.integers(0, 256, (64, 64, 3), np.uint8))
        boxes = np.array([[c, 0.5, 0.5, 0.5, 0.5] for c in range(n)], np.float32).reshape(-1, 5)
        records.append(LabelRecord(path, path.with_suffix(".txt"), (64, 64), boxes))
    return DetectionDataset(records, 64, augment=True, seed=1)


def epochs(dataset: DetectionDataset, workers: int, count: int = 2) -> list[Batch]:
    loader = build_loader(dataset, batch_size=2, workers=workers, shuffle=True, seed=5)
    batches: list[Batch] = []
    for epoch in range(count):
        sampler_of(loader).set_epoch(epoch)
        batches += list(loader)
    return batches


def test_batches_do_not_depend_on_the_number_of_workers(dataset: DetectionDataset) -> None:
    expected = epochs(dataset, 0)
    for workers in (1, 2):
        for ours, theirs in zip(expected, epochs(dataset, workers), strict=True):
            assert ours.paths == theirs.paths
            assert ours.infos == theirs.infos
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.targets, theirs.targets)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("done", range(4))
def test_an_epoch_can_start_behind_its_first_batches(dataset: DetectionDataset, workers: int, done: int) -> None:
    loader = build_loader(dataset, batch_size=2, workers=workers, shuffle=True)
    sampler_of(loader).set_epoch(3)
    whole = list(loader)
    sampler_of(loader).set_epoch(3, skip_batches=done)
    rest = list(loader)
    assert [batch.paths for batch in rest] == [batch.paths for batch in whole[done:]]
    assert all(torch.equal(a.images, b.images) for a, b in zip(rest, whole[done:], strict=True))
    sampler_of(loader).set_epoch(4)
    assert len(list(loader)) == len(loader) == 3


def test_skipped_batches_are_not_made(dataset: DetectionDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ItemKey] = []
    original = DetectionDataset.__getitem__
    monkeypatch.setattr(DetectionDataset, "__getitem__", lambda self, key: (made.append(key), original(self, key))[1])
    loader = build_loader(dataset, batch_size=2, workers=0)
    sampler_of(loader).set_epoch(0, skip_batches=2)
    list(loader)
    assert [key.image for key in made] == [4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_draws_none_of_the_random_numbers_of_the_run(dataset: DetectionDataset, workers: int) -> None:
    before = torch.get_rng_state()
    list(build_loader(dataset, batch_size=2, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_give_way_by_the_niceness_given(dataset: DetectionDataset) -> None:
    class Niceness(DetectionDataset):
        def __getitem__(self, key: Any) -> TrainItem:
            return replace(super().__getitem__(key), path=str(os.nice(0)))

    dataset.__class__ = Niceness
    loader = build_loader(dataset, batch_size=5, workers=1, niceness=3)
    assert [int(path) - os.nice(0) for path in next(iter(loader)).paths] == [3] * 5


def test_where_niceness_is_not_allowed_workers_start_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise PermissionError

    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        monkeypatch.setattr(os, "nice", refuse, raising=False)
        init_worker(0, niceness=10)
        monkeypatch.delattr(os, "nice")
        init_worker(0, niceness=10)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def test_the_last_smaller_batch_is_kept_unless_told_otherwise(dataset: DetectionDataset) -> None:
    assert [len(batch.images) for batch in epochs(dataset, 0, 1)] == [2, 2, 1]
    dropped = build_loader(dataset, batch_size=2, workers=0, drop_last=True)
    assert [len(batch.images) for batch in dropped] == [2, 2]


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own(dataset: DetectionDataset) -> None:
    batches = epochs(dataset, 0)
    first, second = ([path for b in half for path in b.paths] for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == sorted(str(r.image) for r in dataset.records)
    assert first != second


def test_workers_are_capped_at_the_number_of_cpus(dataset: DetectionDataset) -> None:
    assert build_loader(dataset, batch_size=2, workers=10_000).num_workers == usable_cpus()
    assert build_loader(dataset, batch_size=2, workers=0).num_workers == 0


def test_targets_name_their_image_in_the_batch() -> None:
    info = LetterboxInfo((8, 8), (1.0, 1.0), (0.0, 0.0))
    items = [TrainItem(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(n, 6), f"{n}", info) for n in (2, 0, 1)]
    batch = collate(items)
    assert batch.images.shape == (3, 3, 8, 8)
    assert batch.targets[:, 0].tolist() == [0, 0, 2]
    assert batch.paths == ["2", "0", "1"]
    assert (items[0].targets == 0).all()


def test_a_batch_of_background_has_targets_of_no_rows() -> None:
    info = LetterboxInfo((8, 8), (1.0, 1.0), (0.0, 0.0))
    items = [TrainItem(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(0, 6), "", info)] * 4
    assert collate(items).targets.shape == (0, 6)


def test_the_sampler_carries_the_epoch_and_repeats_for_the_same_seed() -> None:
    sampler = EpochSampler(6, seed=2)
    sampler.set_epoch(3)
    order = list(sampler)
    assert order == list(sampler)
    assert {key.epoch for key in order} == {3}
    assert sorted(key.image for key in order) == list(range(6))
    assert list(EpochSampler(3, shuffle=False)) == [ItemKey(0, 0), ItemKey(0, 1), ItemKey(0, 2)]


def test_weights_draw_with_replacement_and_never_a_zero() -> None:
    sampler = EpochSampler(4, seed=0)
    sampler.set_weights([0, 1, 3, 0])
    drawn = [index for epoch in range(200) for index in (sampler.set_epoch(epoch), [k.image for k in sampler])[1]]
    assert len(drawn) == 800
    assert set(drawn) == {1, 2}
    assert 0.7 < drawn.count(2) / 800 < 0.8
    sampler.set_weights(None)
    assert sorted(key.image for key in sampler) == [0, 1, 2, 3]


def test_an_image_drawn_twice_in_an_epoch_is_augmented_in_two_ways(dataset: DetectionDataset) -> None:
    sampler = EpochSampler(5, seed=0)
    sampler.set_weights([0, 0, 0, 1, 0])
    keys = list(sampler)
    assert [(key.image, key.repeat) for key in keys] == [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4)]
    assert len({dataset[key].image.numpy().tobytes() for key in keys}) == 5


@pytest.mark.parametrize("weights", [[1, 1], [0, 0, 0, 0], [1, -1, 1, 1], [1, float("nan"), 1, 1]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="4 finite numbers"):
        EpochSampler(4).set_weights(weights)


def test_rectangular_batches_are_not_shuffled(dataset: DetectionDataset) -> None:
    rect = DetectionDataset(dataset.records, 64, rect=True, batch_size=2)
    for options in ({"batch_size": 2, "shuffle": True}, {"batch_size": 4, "shuffle": False}):
        with pytest.raises(ValueError, match="rectangular"):
            build_loader(rect, workers=0, **options)  # type: ignore[arg-type]
    assert len(list(build_loader(rect, batch_size=2, workers=0))) == 3


def quad_items(count: int) -> list[TrainItem]:
    """Images of one shade each with one box in the upper left quarter."""
    info = LetterboxInfo((8, 8), (1.0, 1.0), (0.0, 0.0))
    targets = torch.tensor([[0, 1, 0.25, 0.25, 0.5, 0.5]])
    return [TrainItem(torch.full((3, 8, 8), n, dtype=torch.uint8), targets, str(n), info, (0, n)) for n in range(count)]


def test_four_images_become_one_of_twice_the_size() -> None:
    united, enlarged = [], []
    for seed in range(20):
        batch = QuadCollate(seed)(quad_items(4))
        assert batch.images.shape == (1, 3, 16, 16)
        (united if len(batch.targets) == 4 else enlarged).append(batch)
    assert len(united) > 4 and len(enlarged) > 4
    quarters = [united[0].images[0, 0, y, x].item() for y, x in ((0, 0), (0, 15), (15, 0), (15, 15))]
    assert quarters == [0, 1, 2, 3]
    expected = [[0, 1, x, y, 0.25, 0.25] for y in (0.125, 0.625) for x in (0.125, 0.625)]
    assert united[0].targets.tolist() == expected
    assert (enlarged[0].images == 0).all()
    assert enlarged[0].targets.tolist() == [[0, 1, 0.25, 0.25, 0.5, 0.5]]


@pytest.mark.parametrize(("count", "boxes"), [(1, [1]), (2, [2]), (3, [3])])
def test_what_is_left_of_four_gets_grey_neighbours(count: int, boxes: list[int]) -> None:
    batch = QuadCollate()(quad_items(count))
    assert batch.images.shape == (1, 3, 16, 16)
    assert len(batch.targets) == boxes[0]
    assert (batch.images[0, 0, 15, 15] == (0 if count == 1 else 114)).all()


def test_quad_batches_do_not_depend_on_the_number_of_workers(dataset: DetectionDataset) -> None:
    expected, ours = (
        list(build_loader(dataset, batch_size=4, workers=workers, seed=3, quad=True)) for workers in (0, 2)
    )
    assert [batch.images.shape for batch in expected] == [(1, 3, 128, 128)] * 2
    for first, second in zip(expected, ours, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.targets, second.targets)


def test_batches_of_workers_arrive_in_shared_memory(dataset: DetectionDataset) -> None:
    for batch in build_loader(dataset, batch_size=2, workers=1):
        assert batch.images.is_shared()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8")
def test_too_little_shared_memory_means_fewer_workers_and_a_hint(
    dataset: DetectionDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch_bytes = 2 * 3 * 64 * 64
    monkeypatch.setattr("utils.datasets.loader.usable_cpus", lambda: 8)
    for free, workers in ((3 * batch_bytes - 1, 0), (7 * batch_bytes, 2), (100 * batch_bytes, 8)):
        caplog.clear()
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda _, found=usage: found)
        assert build_loader(dataset, batch_size=2, workers=8).num_workers == workers
        assert ("--batch-size" in caplog.text) == (workers < 8)


# Several processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch", "size", "unit", "parts"),
    [
        (8, 4, 2, 1, [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]),
        (7, 4, 2, 1, [[[0, 1], [4, 5]], [[2, 3], [6]]]),
        (5, 4, 2, 1, [[[0, 1], [4]], [[2, 3], [~4]]]),  # nothing is left for the second: a blank image
        (5, 3, 3, 1, [[[0], [3]], [[1], [4]], [[2], [~3]]]),
        (11, 8, 2, 4, [[[0, 1, 2, 3], [8, 9, 10]], [[4, 5, 6, 7], [~8]]]),
    ],
)
def test_processes_share_every_batch(n: int, batch: int, size: int, unit: int, parts: list[list[list[int]]]) -> None:
    for rank, expected in enumerate(parts):
        batches = RankBatches(EpochSampler(n, shuffle=False), batch, False, Ranks(rank, size), unit)
        assert [[key.image for key in keys] for keys in batches] == expected
        assert len(batches) == len(expected)


def test_the_blank_image_has_the_shape_of_its_batch_and_counts_for_nothing(
    tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    records = load_labels(DatasetSpec.load(make_dataset(tmp_path, n_train=3, hw=(64, 128))), "train").records
    dataset = DetectionDataset(records, 128, rect=True, batch_size=2, stride=32)
    last = list(build_loader(dataset, batch_size=2, workers=0, ranks=Ranks(1, 2)))[-1]
    assert (last.paths, last.count, len(last.targets)) == ([""], 0, 0)
    assert tuple(last.images.shape) == (1, 3, 64, 128)


@pytest.mark.parametrize("options", [{}, {"quad": True, "batch_size": 8}])
def test_the_parts_together_are_the_batches_of_one_process(
    tmp_path: Path, make_dataset: Callable[..., Path], options: dict[str, Any]
) -> None:
    records = load_labels(DatasetSpec.load(make_dataset(tmp_path, n_train=11)), "train").records
    dataset = DetectionDataset(records, 64, augment=True, seed=3)
    given = {"batch_size": 4, "workers": 0, "shuffle": True, "seed": 3, **options}
    whole = list(build_loader(dataset, **given))
    parts = [list(build_loader(dataset, **given, ranks=Ranks(rank, 2))) for rank in range(2)]
    for batch, *shares in zip(whole, *parts):
        real = [share for share in shares if share.count]
        assert torch.equal(batch.images, torch.cat([share.images for share in real]))
        assert torch.equal(batch.targets[:, 1:], torch.cat([share.targets[:, 1:] for share in real]))
