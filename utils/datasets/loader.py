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
from utils.datasets.augment.geometry import GREY
from utils.datasets.augment.mosaic_sampling import add_mosaic_images, even_workers, recent_images_needed
from utils.datasets.dataset import DetectionDataset, ItemKey, TrainItem

LOG = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")  # where the batches of workers are on Linux
_PREFETCHED = 3  # batches of one worker: two are waiting and one is being made
_BEFORE_FIRST = 2**32  # a seed cannot be negative: that of epoch -1 is one less than this
_SHARE_OF_FREE = 8  # one part in so many of the free memory may hold recently decoded images

_T = TypeVar("_T")


@dataclass(frozen=True)
class Batch:
    """Images [B, 3, H, W] uint8 RGB and targets [N, 6] float32: image in the batch, class, cx, cy, w, h in 0..1."""

    images: torch.Tensor
    targets: torch.Tensor
    paths: list[str]
    infos: list[LetterboxInfo]

    @property
    def count(self) -> int:
        """Number of images, without the empty one of a process that has none (see :class:`RankBatches`)."""
        return sum(path != "" for path in self.paths)

    def pin_memory(self) -> Batch:
        """Copy to pinned memory, so that copies to the GPU are asynchronous; the data loader calls this."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.paths, self.infos)


def collate(items: Sequence[TrainItem]) -> Batch:
    """Stack items of equal image size; column 0 of the targets becomes the position in the batch."""
    out = None
    if torch.utils.data.get_worker_info() is not None:
        # Into memory that is shared with the training process: otherwise the batch is copied once more.
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

    At random the four lie in a square, or the first is enlarged and the others are dropped. At the end of an epoch,
    two or three items are padded with grey to a square.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, items: Sequence[TrainItem]) -> Batch:
        return collate([self._join_four(items[i : i + 4]) for i in range(0, len(items), 4)])

    def _join_four(self, four: Sequence[TrainItem]) -> TrainItem:
        first = four[0]
        height, width = first.image.shape[1:]
        info = LetterboxInfo((2 * height, 2 * width), (1.0, 1.0), (0.0, 0.0))
        # A single item may be an empty one, whose key is no seed.
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


class EpochSampler(Sampler[ItemKey]):
    """Yields keys that hold the epoch too, so that persistent workers know it.

    With ``shuffle`` the order is a permutation by (seed, epoch). After ``set_weights`` each epoch draws ``n`` images
    with replacement, in proportion to the weights.
    """

    def __init__(self, n: int, seed: int = 0, shuffle: bool = True) -> None:
        self.n = n
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.skip_batches = 0
        self._probabilities: np.ndarray | None = None

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch of the next pass; the order depends on nothing else.

        Args:
            epoch: from 0.
            skip_batches: how many of its first batches :class:`RankBatches` skips, so that they are not made.
        """
        self.epoch, self.skip_batches = epoch, skip_batches

    def set_weights(self, weights: Sequence[float] | np.ndarray | None) -> None:
        """Draw images in proportion to ``weights`` [n], not negative, not all zero; None: each image once."""
        if weights is None:
            self._probabilities = None
            return
        values = np.asarray(weights, np.float64)
        if values.shape != (self.n,) or not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
            raise ValueError(f"image weights: {self.n} finite numbers >= 0 with a sum above 0 expected")
        self._probabilities = values / values.sum()

    def order(self, epochs_ago: int = 0) -> list[int]:
        """Return the image numbers in the order of this epoch, or of an earlier one, also before epoch 0.

        Weights count for this epoch only.
        """
        epoch = self.epoch - epochs_ago
        rng = np.random.default_rng((self.seed, epoch if epoch >= 0 else _BEFORE_FIRST + epoch))
        if self._probabilities is not None and not epochs_ago:
            order = rng.choice(self.n, self.n, p=self._probabilities)
        elif self.shuffle:
            order = rng.permutation(self.n)
        else:
            order = np.arange(self.n)
        return order.tolist()

    def __iter__(self) -> Iterator[ItemKey]:
        epoch, order = self.epoch, self.order()
        if self._probabilities is None:
            return (ItemKey(epoch, image) for image in order)
        drawn = Counter[int]()
        keys = []
        for image in order:
            keys.append(ItemKey(epoch, image, drawn[image]))
            drawn[image] += 1
        return iter(keys)

    def __len__(self) -> int:
        return self.n


class RankBatches(Sampler[list[ItemKey]]):
    """The part of every batch that one of several processes gets; all parts together are the whole batch.

    A part is a contiguous piece of the batch; parts differ in size by ``unit`` at most. A process without any image of
    the last batch gets the key (epoch, ~image), which selects an empty image.

    Args:
        sampler: gives the order of the images.
        batch_size: images per batch of all processes.
        drop_last: drop the last batch if it is smaller.
        ranks: number of this process and of all.
        unit: images that stay together.
        batches: the images of every batch, in place of the order of ``sampler``.
        add_others: keys hold the other images of their mosaic (:mod:`utils.datasets.augment.mosaic_sampling`).
    """

    def __init__(
        self,
        sampler: EpochSampler,
        batch_size: int,
        drop_last: bool,
        ranks: Ranks,
        unit: int = 1,
        batches: Sequence[Sequence[int]] | None = None,
        add_others: bool = False,
    ) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self.ranks, self.unit, self.batches, self.add_others = ranks, unit, batches, add_others

    def __len__(self) -> int:
        """Return the number of batches of an epoch, the same for all processes."""
        if self.batches is not None:
            return len(self.batches)
        return (math.floor if self.drop_last else math.ceil)(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[list[ItemKey]]:
        for keys in islice(self._whole_batches(), self.sampler.skip_batches, None):
            each = math.ceil(len(keys) / self.unit) / self.ranks.size  # in units; rounded up: rank 0 has some
            first, last = (math.ceil(each * rank) * self.unit for rank in (self.ranks.rank, self.ranks.rank + 1))
            yield keys[first:last] or [ItemKey(keys[0].epoch, ~keys[0].image)]

    def _whole_batches(self) -> Iterable[list[ItemKey]]:
        if self.batches is not None:
            return [[ItemKey(self.sampler.epoch, image) for image in batch] for batch in self.batches]
        batches = self._cut(list(self.sampler))
        if not self.add_others:
            return batches
        seed = self.sampler.seed, self.sampler.epoch
        return add_mosaic_images(batches, lambda epochs: self._cut(self.sampler.order(epochs)), seed)

    def _cut(self, order: list[_T]) -> list[list[_T]]:
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [order[start : start + self.batch_size] for start in starts]


def init_worker(_: int, niceness: int = 0) -> None:
    """Limit a worker to one thread: the workers run in parallel already.

    Args:
        niceness: added to that of the worker. The threads of a training step wait for each other, so a delay of one
            delays all; images have time until the end of the step.
    """
    if niceness:
        with contextlib.suppress(AttributeError, OSError):  # not on Windows, and a container may forbid it
            os.nice(niceness)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _workers_that_fit(workers: int, batch_size: int, batch_bytes: int) -> int:
    """Return how many workers have room for their batches in shared memory; too many would be killed during the run."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not Linux
        return workers
    fit = int(free // (_PREFETCHED * batch_bytes))
    if fit >= workers:
        return workers
    LOG.warning(
        "%s has %.3g MB free, %d workers with batches of %d images need %.3g MB: using %d workers; a smaller "
        "--batch-size, or more shared memory (docker run --shm-size), allows more",
        SHARED_MEMORY,
        free / 1e6,
        workers,
        batch_size,
        _PREFETCHED * workers * batch_bytes / 1e6,
        fit,
    )
    return fit


def _recent_that_fit(imgsz: int, batch_size: int, workers: int, ranks: Ranks) -> int:
    """Return how many decoded images each worker may keep; fewer cost time only."""
    wanted = recent_images_needed(batch_size, workers)
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
    recent_mosaics: bool = True,
    niceness: int = 0,
) -> DataLoader[Any]:
    """Return a loader of ``Batch``; :func:`sampler_of` returns its sampler.

    Args:
        dataset: the items.
        batch_size: of all processes together. The last batch may be smaller.
        workers: processes that make batches, at most the number of CPUs; 0: this process.
        shuffle: draw a new order in every epoch.
        seed: of the order: batches depend on it and the epoch only.
        drop_last: drop the last batch if it is smaller.
        quad: join every four images (:class:`QuadCollate`), so that batches have a quarter of ``batch_size``.
        ranks: several processes get their part of every batch, and their share of CPUs and shared memory.
        batches: the images of each batch, at most ``batch_size`` and of one shape, in place of an order.
        recent_mosaics: mosaics take recently decoded images (see ``augment.mosaic_sampling``); False: any images.
        niceness: of the workers.

    Raises:
        ValueError: the order would mix images of different rectangular batches.
    """
    if dataset.rect and batches is None and (shuffle or batch_size != dataset.batch_size):
        raise ValueError("rectangular batches have one shape per batch: no shuffling, and the data set's batch size")
    workers = max(0, min(workers, usable_cpus() // ranks.local_size))
    if workers:
        pixels, own = int(dataset.batch_shapes.prod(1).max()), math.ceil(batch_size / ranks.size)
        workers = _workers_that_fit(workers, own, 3 * pixels * own * ranks.local_size)
    add_others = recent_mosaics and batches is None and dataset.makes_mosaics
    if add_others and not dataset.keeps_all:
        if (even := even_workers(workers)) < workers:
            LOG.info("%d workers instead of %d: so many share the decoded images evenly", even, workers)
            workers = even
        dataset.keep_recent(_recent_that_fit(dataset.imgsz, math.ceil(batch_size / ranks.size), workers, ranks))
    if not workers:
        keep_freed_memory()
    sampler = EpochSampler(len(dataset), seed, shuffle)
    return DataLoader(
        dataset,
        batch_sampler=RankBatches(
            sampler, batch_size, drop_last, ranks, unit=4 if quad else 1, batches=batches, add_others=add_others
        ),
        num_workers=workers,
        collate_fn=QuadCollate(seed) if quad else collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=partial(init_worker, niceness=niceness),
        generator=torch.Generator(),  # else each start of the workers would draw from the random numbers of the run
        persistent_workers=workers > 0,
    )


def sampler_of(loader: DataLoader[Any]) -> EpochSampler:
    """Return the sampler of a loader made by :func:`build_loader`."""
    assert isinstance(loader.batch_sampler, RankBatches)
    return loader.batch_sampler.sampler
