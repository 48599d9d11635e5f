"""Partners of mosaics: which ones, how random, and how often they are decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.config.hyp import Hyp
from utils.core.dist import ALONE, Ranks
from utils.core.image import write_image
from utils.datasets.augment.mosaic_sampling import (
    BLOCK,
    OTHER_IMAGES,
    POOL_IMAGES,
    POOLS,
    add_mosaic_images,
    even_workers,
    recent_images_needed,
)
from utils.datasets.dataset import DetectionDataset, ItemKey
from utils.datasets.labels.records import LabelRecord
from utils.datasets.loader import EpochSampler, RankBatches, build_loader, sampler_of

Orders = dict[int, list[list[int]]]  # epoch -> batches of indices


def dealt(orders: Orders, epoch: int = 0, seed: int = 5) -> list[list[ItemKey]]:
    """The keys of an epoch; missing epochs before it are an error."""
    batches = [[ItemKey(epoch, image) for image in batch] for batch in orders[epoch]]
    return list(add_mosaic_images(batches, lambda back: orders[epoch - back], (seed, epoch)))


def cut(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


@pytest.fixture
def records(tmp_path: Path) -> list[LabelRecord]:
    """Twenty small images with a box each, listed fifty times over."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(20):
        path = tmp_path / f"{n}.png"
        write_image(path, rng.integers(0, 256, (24, 32, 3), np.uint8))
        box = np.array([[n % 3, *rng.uniform(0.3, 0.7, 2), *rng.uniform(0.2, 0.5, 2)]], np.float32)
        found.append(LabelRecord(path, path.with_suffix(".txt"), (24, 32), box))
    return found * 50


def test_the_partners_of_a_batch_are_the_last_images_of_its_lane() -> None:
    orders = {-1: cut(range(10_000, 10_512), BLOCK), 0: cut(range(512), BLOCK)}
    batches = dealt(orders)
    fifth_of_lane_1 = 4 * POOLS + 1 - POOLS  # its three predecessors are of this epoch
    before = {image for n in (1, 2, 3) for image in orders[0][fifth_of_lane_1 - n * POOLS]}
    assert {image for key in batches[fifth_of_lane_1] for image in key.others} == before
    assert len(before) == POOL_IMAGES


def test_an_epoch_begins_with_the_last_images_of_the_epoch_before() -> None:
    orders = {-1: cut(range(10_000, 10_512), BLOCK), 0: cut(range(512), BLOCK)}
    first = dealt(orders)[2]  # 32 batches an epoch: lane 2 ends with the batches 10, 18 and 26 of it
    before = {image for number in (10, 18, 26) for image in orders[-1][number]}
    assert {image for key in first for image in key.others} == before


def test_small_data_sets_look_back_over_several_epochs() -> None:
    orders = {epoch: cut([100 * epoch + n for n in range(20)], 4) for epoch in range(-15, 1)}
    last = dealt(orders)[4]  # the only batch of lane 4 in an epoch: twelve epochs back are 48 images
    expected = {100 * epoch + n for epoch in range(-12, 0) for n in range(16, 20)}
    assert set(last[0].others) < expected
    assert set().union(*(key.others for key in last)) < expected


def test_all_mosaics_of_a_batch_take_different_images() -> None:
    orders = {-1: cut(range(10_000, 11_024), 32), 0: cut(range(1024), 32)}
    for batch in dealt(orders):
        for block in cut(range(32), BLOCK):
            taken = [image for place in block for image in batch[place].others[:3]]
            assert len(set(taken)) == len(taken) == POOL_IMAGES
            assert not set(taken) & {batch[place].image for place in block}


def test_every_image_is_a_partner_three_times_an_epoch() -> None:
    """Over the long run; each of them once in every batch that it is at hand for."""
    orders = {epoch: cut(np.random.default_rng(epoch + 9).permutation(640).tolist(), BLOCK) for epoch in range(-1, 6)}
    taken = Counter(image for e in range(6) for batch in dealt(orders, e) for k in batch for image in k.others[:3])
    assert len(taken) == 640
    assert sum(taken.values()) == 3 * 640 * 6
    assert min(taken.values()) >= 15 and max(taken.values()) <= 21  # those at the ends of the epochs


def test_hands_are_shuffled_and_differ_from_epoch_to_epoch() -> None:
    orders = {epoch: cut(range(512), BLOCK) for epoch in range(-1, 3)}
    assert dealt(orders, 0) == dealt(orders, 0)
    hands = [[key.others for key in dealt(orders, epoch)[12]] for epoch in (0, 1)]
    assert hands[0] != hands[1]
    assert hands[0] != [key.others for key in dealt(orders, 0, seed=6)[12]]
    assert all(len(hand) == OTHER_IMAGES for hand in hands[0])


@pytest.mark.parametrize("n", [1, 2, 5, 47, 48, 200])
@pytest.mark.parametrize("batch_size", [1, 4, 16, 20])
def test_any_size_of_data_set_and_batch_works(n: int, batch_size: int) -> None:
    batches = RankBatches(EpochSampler(n, seed=1), batch_size, False, ALONE, add_others=True)
    for keys in batches:
        for key in keys:
            assert len(key.others) == OTHER_IMAGES
            assert set(key.others) <= set(range(n))
    assert sum(map(len, batches)) == n


def test_no_order_of_an_earlier_epoch_is_that_of_this_one() -> None:
    sampler = EpochSampler(50, seed=3)
    orders = [tuple(sampler.order(back)) for back in range(4)]
    assert len(set(orders)) == 4
    sampler.set_epoch(2)
    assert tuple(sampler.order(2)) == orders[0]
    assert tuple(sampler.order(3)) == orders[1]


@pytest.mark.parametrize(
    ("wanted", "even"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8), (15, 8), (16, 16), (23, 16)],
)
def test_loader_processes_share_the_lanes_evenly(wanted: int, even: int) -> None:
    assert even_workers(wanted) == even


def test_more_processes_than_lanes_still_find_half_of_what_they_need() -> None:
    """Each of sixteen gets every other batch of a lane: its own images and a third of the partners are new to it."""
    batches = list(RankBatches(EpochSampler(12_800), BLOCK, False, ALONE, add_others=True))[:: even_workers(16)]
    kept: dict[int, None] = {}
    decoded = 0
    for key in (key for batch in batches for key in batch):
        for image in (key.image, *key.others[:3]):
            if image not in kept:
                decoded += 1
                kept[image] = None
                if len(kept) > recent_images_needed(BLOCK, 16):
                    del kept[next(iter(kept))]
    assert decoded <= 2.1 * sum(map(len, batches))


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("batch_size", [16, 24])
def test_whoever_makes_the_batches_of_a_lane_decodes_every_image_once(
    records: list[LabelRecord], workers: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.datasets.loader.free_memory", lambda _: None)
    data = DetectionDataset(records, 32, augment=True)
    loader = build_loader(data, batch_size=batch_size, workers=0, shuffle=True)
    data.keep_recent(recent_images_needed(batch_size, workers))
    asked = list(loader.batch_sampler)[:: max(workers, 1)]  # type: ignore[arg-type]
    decoded, decode = [0], data._images._decode

    def count(*given: Any) -> Any:
        decoded[0] += 1
        return decode(*given)

    monkeypatch.setattr(data._images, "_decode", count)
    warm = 4 * POOLS // max(workers, 1)  # four batches of every lane
    for batch in asked[:warm]:
        for key in batch:
            data[key]
    decoded[0] = 0
    rest = [key for batch in asked[warm:] for key in batch]
    for key in rest:
        data[key]
    assert len(rest) > 25
    assert decoded[0] <= 1.2 * len(rest)
    assert len(data._images._recent) <= recent_images_needed(batch_size, workers)


def test_only_an_eighth_of_the_free_memory_is_taken(
    records: list[LabelRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DetectionDataset(records, 32, augment=True)
    for free, kept in (
        (8 * 3 * 32 * 32 * 20, 20),
        (8, 0),
        (2**40, recent_images_needed(16, 0)),
        (None, recent_images_needed(16, 0)),
    ):
        monkeypatch.setattr("utils.datasets.loader.free_memory", lambda _, value=free: value)
        build_loader(data, batch_size=16, workers=0, shuffle=True)
        assert data._images._max_recent == kept
        data[ItemKey(0, 0)]
    shared = 8 * 3 * 32 * 32 * 20
    monkeypatch.setattr("utils.datasets.loader.free_memory", lambda _: shared)
    build_loader(data, batch_size=16, workers=0, shuffle=True, ranks=Ranks(0, 4, 0, 4))
    assert data._images._max_recent == 20 // 4


def test_batches_are_the_same_whatever_is_kept(records: list[LabelRecord]) -> None:
    data = DetectionDataset(records[:100], 32, augment=True, hyp=Hyp(mixup=0.5, mosaic9=0.3))
    loader = build_loader(data, batch_size=16, workers=0, shuffle=True)
    keys = [key for batch in loader.batch_sampler for key in batch]  # type: ignore[union-attr]
    items = [data[key] for key in keys]
    for kept in (0, 1, 7):
        data.keep_recent(kept)
        for key, item in zip(keys, items):
            again = data[key]
            assert torch.equal(again.image, item.image)
            assert torch.equal(again.targets, item.targets)


def test_mosaics_are_statistically_those_of_the_whole_data_set(records: list[LabelRecord]) -> None:
    """Boxes per image, their size and their place, and the classes; 1000 images each."""
    data = DetectionDataset(records, 64, augment=True)
    figures = []
    for near in (True, False):
        loader = build_loader(data, batch_size=16, workers=0, shuffle=True, recent_mosaics=near)
        targets = torch.cat([batch.targets for batch in loader])
        count = len(targets) / len(records)
        figures.append([count, *targets[:, 1:].mean(0).tolist(), *targets[:, 1:].std(0).tolist()])
    near_figures, all_figures = np.array(figures)
    assert near_figures[0] == pytest.approx(all_figures[0], rel=0.05)  # boxes per image, about 2.5
    np.testing.assert_allclose(near_figures[1:], all_figures[1:], rtol=0.05)


def test_drawing_from_the_whole_data_set_is_a_choice(records: list[LabelRecord]) -> None:
    data = DetectionDataset(records, 32, augment=True)
    for near in (True, False):
        loader = build_loader(data, batch_size=16, workers=0, shuffle=True, recent_mosaics=near)
        first = next(iter(loader.batch_sampler))[0]  # type: ignore[arg-type]
        assert bool(first.others) == near
    for still in (DetectionDataset(records, 32), DetectionDataset(records, 32, augment=True, hyp=Hyp(mosaic=0.0))):
        loader = build_loader(still, batch_size=16, workers=0, shuffle=True)
        assert not next(iter(loader.batch_sampler))[0].others  # type: ignore[arg-type]


def test_images_drawn_by_weight_come_as_partners_by_weight(records: list[LabelRecord]) -> None:
    """After the first batches, whose partners are those of the epoch before."""
    loader = build_loader(DetectionDataset(records, 32, augment=True), batch_size=16, workers=0, shuffle=True, seed=1)
    sampler_of(loader).set_weights([1.0] * 10 + [0.0] * (len(records) - 10))
    batches = list(loader.batch_sampler)  # type: ignore[arg-type]
    late = [key for batch in batches[3 * POOLS :] for key in batch]
    assert {image for key in late for image in key.others} <= set(range(10))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3")  # on a machine with two processors
@pytest.mark.parametrize(("cache", "workers"), [(None, 2), ("ram", 3), ("disk", 3)])
def test_loader_processes_are_not_left_out_where_nothing_is_decoded_again(
    records: list[LabelRecord], cache: str | None, workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("utils.datasets.loader.usable_cpus", lambda: 3)
    data = DetectionDataset(records, 32, augment=True, cache_images=cache, cache_dir=tmp_path / "kept")
    assert build_loader(data, batch_size=16, workers=8, shuffle=True).num_workers == workers
