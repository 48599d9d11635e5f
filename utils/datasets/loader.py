"""Batches: the order of the images, the workers, and how items become one batch."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler

from utils.core.dist import ALONE, Ranks
from utils.core.image import LetterboxInfo
from utils.core.memory import free_memory, keep_freed_memory
from utils.datasets.augment import GREY
from utils.datasets.dataset import DetectionDataset, Key, TrainItem
from utils.datasets.mosaic_sampling import deal_partners, even_workers, kept_images

LOG = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")  # where batches of workers lie on Linux
_IN_FLIGHT = 3  # batches of one worker: two waiting and one in the making
_BEFORE_FIRST = 2**32  # a seed cannot be negative: that of epoch -1 is one less than this
_SHARE_OF_FREE = 8  # one part in so many of the free memory may hold images that were decoded lately

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Batch:
    """Images [B, 3, H, W] uint8 RGB and targets [N, 6] float32: image in the batch, class, cx, cy, w, h in 0..1."""

    images: torch.Tensor
    targets: torch.Tensor
    paths: list[str]
    infos: list[LetterboxInfo]

    @property
    def count(self) -> int:
        """How many there are, without the blank one of a process that has none (see :class:`RankBatches`)."""
        return sum(path != "" for path in self.paths)

    def pin_memory(self) -> Batch:
        """Called by the data loader to make copies to the GPU asynchronous."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.paths, self.infos)


def collate(items: Sequence[TrainItem]) -> Batch:
    """Stack items of equal image size; column 0 of the targets becomes the place in the batch."""
    out = None
    if torch.utils.data.get_worker_info() is not None:
        # Straight into memory that the training process sees as well: otherwise the batch is copied once more.
        shape = (len(items), *items[0].image.shape)
        storage = torch.UntypedStorage._new_shared(math.prod(shape))
        out = torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
    images = torch.stack([item.image for item in items], out=out)
    targets = torch.cat([item.targets for item in items])
    counts = torch.tensor([len(item.targets) for item in items])
    targets[:, 0] = torch.repeat_interleave(torch.arange(len(items)), counts)
    return Batch(images, targets, [item.path for item in items], [item.info for item in items])


class QuadCollate:
    """Makes one image of twice the size out of every four items (``--quad``), then a batch of these.

    By turns at random the four lie in a square, or the first is enlarged and the others are left out. At the end of an
    epoch, what is left of four gets grey neighbours.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, items: Sequence[TrainItem]) -> Batch:
        return collate([self._unite(items[i : i + 4]) for i in range(0, len(items), 4)])

    def _unite(self, four: Sequence[TrainItem]) -> TrainItem:
        first = four[0]
        height, width = first.image.shape[1:]
        info = LetterboxInfo((2 * height, 2 * width), (1.0, 1.0), (0.0, 0.0))
        # Nothing else depends on what is united. A lone image may be a blank one, whose key is no seed.
        if len(four) == 1 or (len(four) == 4 and np.random.default_rng((self.seed, *first.key, 4)).random() < 0.5):
            image = functional.interpolate(first.image[None], scale_factor=2.0, mode="bilinear")[0]
            return replace(first, image=image, info=info)
        image = torch.full((3, 2 * height, 2 * width), GREY[0], dtype=torch.uint8)
        targets = []
        for place, item in enumerate(four):
            row, column = divmod(place, 2)
            image[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = item.image
            moved = item.targets.clone()
            moved[:, 2:] = moved[:, 2:] / 2 + torch.tensor([column / 2, row / 2, 0, 0])
            targets.append(moved)
        return replace(first, image=image, targets=torch.cat(targets), info=info)


class EpochSampler(Sampler[Key]):
    """Yields keys: the epoch travels with the index, so workers that persist know it too.

    With ``shuffle`` the order is a permutation by (seed, epoch). After ``set_weights`` each epoch draws ``n`` indices
    with replacement, in proportion to the weights.
    """

    def __init__(self, n: int, seed: int = 0, shuffle: bool = True) -> None:
        self.n = n
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.skip_batches = 0
        self._shares: np.ndarray | None = None

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch of the next pass; the order depends on nothing else.

        Args:
            epoch: from 0.
            skip_batches: how many of its first batches :class:`RankBatches` leaves out, so that they are not made.
        """
        self.epoch, self.skip_batches = epoch, skip_batches

    def set_weights(self, weights: Sequence[float] | np.ndarray | None) -> None:
        """Draw images in proportion to ``weights`` [n], not negative, not all zero; None goes back to one each."""
        if weights is None:
            self._shares = None
            return
        values = np.asarray(weights, np.float64)
        if values.shape != (self.n,) or not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
            raise ValueError(f"image weights: {self.n} finite numbers >= 0 with a sum above 0 expected")
        self._shares = values / values.sum()

    def order(self, epochs_ago: int = 0) -> list[int]:
        """Indices in the order of this epoch or, without weights, of one before it (of -1, -2 ... before the first)."""
        epoch = self.epoch - epochs_ago
        rng = np.random.default_rng((self.seed, epoch if epoch >= 0 else _BEFORE_FIRST + epoch))
        if self._shares is not None and not epochs_ago:
            order = rng.choice(self.n, self.n, p=self._shares)
        elif self.shuffle:
            order = rng.permutation(self.n)
        else:
            order = np.arange(self.n)
        return order.tolist()

    def __iter__(self) -> Iterator[Key]:
        epoch, order = self.epoch, self.order()
        if self._shares is None:
            return (Key(epoch, index) for index in order)
        turns = Counter[int]()
        keys = []
        for index in order:
            keys.append(Key(epoch, index, turns[index]))
            turns[index] += 1
        return iter(keys)

    def __len__(self) -> int:
        return self.n


class RankBatches(Sampler[list[Key]]):
    """The part of every batch that falls to one of several processes, so that all of them together see the whole one.

    Parts are neighbours in the batch and differ in size by ``unit`` at most. A process for which the last batch has
    nothing left gets the key (epoch, ~index), for which the data set has a blank image. ``batches`` gives the indices
    of every whole batch; otherwise the order of ``sampler`` is cut into equal ones. ``partners`` says whether keys come
    with the partners of mosaics (see :mod:`utils.datasets.mosaic_sampling`).
    """

    def __init__(
        self,
        sampler: EpochSampler,
        batch_size: int,
        drop_last: bool,
        ranks: Ranks,
        unit: int = 1,
        batches: Sequence[Sequence[int]] | None = None,
        partners: bool = False,
    ) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self.ranks, self.unit, self.batches, self.partners = ranks, unit, batches, partners

    def __len__(self) -> int:
        """Batches of an epoch, the same for all processes."""
        if self.batches is not None:
            return len(self.batches)
        return (math.floor if self.drop_last else math.ceil)(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for keys in islice(self._whole_batches(), self.sampler.skip_batches, None):
            each = math.ceil(len(keys) / self.unit) / self.ranks.size  # in units; rounded up, rank 0 is never without
            first, last = (math.ceil(each * rank) * self.unit for rank in (self.ranks.rank, self.ranks.rank + 1))
            yield keys[first:last] or [Key(keys[0].epoch, ~keys[0].image)]

    def _whole_batches(self) -> Iterable[list[Key]]:
        if self.batches is not None:
            return [[Key(self.sampler.epoch, index) for index in batch] for batch in self.batches]
        batches = self._cut(list(self.sampler))
        if not self.partners:
            return batches
        seed = self.sampler.seed, self.sampler.epoch
        return deal_partners(batches, lambda epochs: self._cut(self.sampler.order(epochs)), seed)

    def _cut(self, order: list[ItemT]) -> list[list[ItemT]]:
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]


def quiet_worker(_: int, niceness: int = 0) -> None:
    """Start a worker with one thread, as the workers are the parallelism.

    Args:
        niceness: how far the worker gives way to other processes that want the same processor. The threads of a
            training step wait for one another, so one that is held up delays all; images have time until its end.
    """
    if niceness:
        with contextlib.suppress(AttributeError, OSError):  # Windows has no such thing, a container may forbid it
            os.nice(niceness)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _that_fit(workers: int, batch_size: int, batch_bytes: int) -> int:
    """As many workers as there is shared memory for their batches; too many would be killed in the middle of a run."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not Linux
        return workers
    fit = int(free // (_IN_FLIGHT * batch_bytes))
    if fit >= workers:
        return workers
    LOG.warning(
        "%s has %.3g MB free, %d loader processes with batches of %d images need %.3g MB: going on with %d; a "
        "smaller --batch-size, or more shared memory (docker run --shm-size), allows more",
        SHARED_MEMORY, free / 1e6, workers, batch_size, _IN_FLIGHT * workers * batch_bytes / 1e6, fit,
    )  # fmt: skip
    return fit


def _recent_that_fit(imgsz: int, batch_size: int, workers: int, ranks: Ranks) -> int:
    """How many decoded images each loader process may keep: fewer cost time only."""
    wanted = kept_images(batch_size, workers)
    free = free_memory(torch.device("cpu"))
    if free is None:
        return wanted
    room = free // _SHARE_OF_FREE // (max(workers, 1) * ranks.local_size)
    return min(wanted, room // (3 * imgsz * imgsz))


def build_loader(
    dataset: DetectionDataset,
    *,
    batch_size: int,
    workers: int = 8,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    quad: bool = False,
    ranks: Ranks = ALONE,
    batches: Sequence[Sequence[int]] | None = None,
    near_partners: bool = True,
    niceness: int = 0,
) -> DataLoader[Any]:
    """Return a loader of ``Batch``; :func:`sampler_of` gives its sampler. The last batch may be smaller.

    ``quad`` unites every four images (:class:`QuadCollate`), so that batches have a quarter of ``batch_size``.
    ``batches`` gives the images of each batch, at most ``batch_size`` and of one shape, instead of an order.
    ``near_partners``: mosaics take images that were decoded shortly before, which saves two thirds of the decoding
    (:mod:`utils.datasets.mosaic_sampling`); False: from the whole data set, as v6.1. ``niceness``: of the workers.

    The batches of an epoch depend on ``seed`` and the epoch only, not on ``workers`` (0: in this process; capped at
    the number of CPUs). Of several processes each gets its part of every batch of ``batch_size``, and its share of
    CPUs and shared memory. Raises ValueError when rectangular batches would be torn apart.
    """
    if dataset.rect and batches is None and (shuffle or batch_size != dataset.batch_size):
        raise ValueError("rectangular batches have one shape per batch: no shuffling, and the data set's batch size")
    workers = max(0, min(workers, usable_cpus() // ranks.local_size))
    if workers:
        pixels, own = int(dataset.batch_shapes.prod(1).max()), math.ceil(batch_size / ranks.size)
        workers = _that_fit(workers, own, 3 * pixels * own * ranks.local_size)
    partners = near_partners and batches is None and dataset.makes_mosaics
    if partners and not dataset.keeps_all:
        if (even := even_workers(workers)) < workers:
            LOG.info("%d loader processes instead of %d: so many share what is decoded evenly", even, workers)
            workers = even
        dataset.keep_recent(_recent_that_fit(dataset.imgsz, math.ceil(batch_size / ranks.size), workers, ranks))
    if not workers:
        keep_freed_memory()
    sampler = EpochSampler(len(dataset), seed, shuffle)
    return DataLoader(
        dataset,
        batch_sampler=RankBatches(
            sampler, batch_size, drop_last, ranks, unit=4 if quad else 1, batches=batches, partners=partners
        ),
        num_workers=workers,
        collate_fn=QuadCollate(seed) if quad else collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=partial(quiet_worker, niceness=niceness),
        generator=torch.Generator(),  # else each start of the workers would draw from the run's random numbers
        persistent_workers=workers > 0,
    )


def sampler_of(loader: DataLoader[Any]) -> EpochSampler:
    """The sampler of a loader made by :func:`build_loader`, which decides on the order of the images."""
    assert isinstance(loader.batch_sampler, RankBatches)
    return loader.batch_sampler.sampler
