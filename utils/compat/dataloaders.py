"""The data set and the loader of ``utils.datasets`` of YOLOv5 v6.1, whose items are tuples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from utils.config.hyp import Hyp
from utils.core.files import find_images
from utils.core.image import LetterboxInfo
from utils.datasets.dataset import DetectionDataset, TrainItem
from utils.datasets.labels.cache import cache_path_for
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.yolo_text import MAX_CLASS
from utils.datasets.loader import QuadCollate, init_worker, usable_cpus

LOG = logging.getLogger(__name__)

Shapes: TypeAlias = tuple[tuple[int, int], tuple[tuple[float, float], tuple[float, float]]] | None
Item: TypeAlias = tuple[Tensor, Tensor, str, Shapes]  # CHW RGB uint8; [n, 6]: 0, class, xywhn; path; see below
Items: TypeAlias = tuple[Tensor, Tensor, tuple[str, ...], tuple[Shapes, ...]]


class LoadImagesAndLabels(Dataset[Item]):
    """Images with boxes from a folder, a list of images, or several of these.

    An item is (image, labels, path, shapes). ``shapes`` of a letterboxed image is ((height, width), ((ratios of
    height and width), (padding at the left and top))), None for an augmented one.

    Args:
        path, img_size, batch_size, augment, rect, stride, pad: as for :class:`utils.datasets.DetectionDataset`.
        hyp: hyper-parameters by name; None: the defaults.
        cache_images: True or "ram", "disk", or False.
        single_cls: all classes count as one.
        image_weights: no rectangular batches; choose images through ``indices``.
        prefix: of log lines.

    Attributes:
        img_files, label_files: [n] paths.
        labels: [n] arrays [k, 5] class, xywh as fractions.
        segments: [n] lists of polygons.
        shapes: [n, 2] width and height.
        indices: the image of each item.
        batch: [n] batch index of each image.
        batch_shapes: [batches, 2] height and width, with ``rect``.

    Raises:
        FileNotFoundError, InputError: no images, or none that can be used.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        img_size: int = 640,
        batch_size: int = 16,
        augment: bool = False,
        hyp: Mapping[str, Any] | None = None,
        rect: bool = False,
        image_weights: bool = False,
        cache_images: bool | str = False,
        single_cls: bool = False,
        stride: int = 32,
        pad: float = 0.0,
        prefix: str = "",
    ) -> None:
        places = [Path(each) for each in ([path] if isinstance(path, (str, Path)) else path)]
        images = find_images(places)
        cache = cache_path_for(images, sources=places)
        scanned = scan_labels(
            images,
            MAX_CLASS,
            cache_path=cache.with_name(f"{cache.stem}-v61.cache"),  # that of train.py is for one number of classes
            description=prefix.strip().rstrip(":") or "labels",
            single_cls=single_cls,
        )
        self.img_size, self.stride, self.augment = img_size, stride, augment
        self.rect = rect and not image_weights
        self._data = DetectionDataset(
            scanned.records,
            img_size,
            augment=augment,
            hyp=Hyp.from_dict(dict(hyp), "hyp") if hyp else None,
            rect=self.rect,
            batch_size=batch_size,
            stride=stride,
            pad=pad,
            cache_images=cache_images if isinstance(cache_images, str) else "ram" if cache_images else None,
        )
        records = self._data.records
        self.hyp, self.n, self.indices = self._data.hyp.to_dict(), len(records), range(len(records))
        self.mosaic = augment and not self.rect
        self.img_files = [str(record.image) for record in records]
        self.label_files = [str(record.label or "") for record in records]
        self.labels = [record.boxes for record in records]
        self.segments = [list(record.segments) for record in records]
        self.shapes = np.array([record.hw[::-1] for record in records], np.float64).reshape(-1, 2)
        self.batch = np.arange(self.n) // batch_size
        self.batch_shapes = self._data.batch_shapes

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Item:
        item = self._item(index)
        return item.image, item.targets, item.path, _shapes(item, self.augment)

    def _item(self, index: int) -> TrainItem:
        # Scripts seed torch's generator, whose state differs from worker to worker.
        epoch = int(torch.randint(2**31, (1,))) if self.augment else 0
        return self._data[epoch, self.indices[index]]

    @staticmethod
    def collate_fn(batch: Sequence[Item]) -> Items:
        """Collate items of one size: images [B, 3, H, W], labels [N, 6] with the index in the batch, paths, shapes."""
        images, targets, paths, shapes = zip(*batch)
        for place, rows in enumerate(targets):
            rows[:, 0] = place
        return torch.stack(images), torch.cat(targets), paths, shapes

    @staticmethod
    def collate_fn4(batch: Sequence[Item]) -> Items:
        """As ``collate_fn``, after every four images are joined to one of twice the size."""
        full = batch[: len(batch) // 4 * 4] or batch
        whole = LetterboxInfo((full[0][0].shape[1], full[0][0].shape[2]), (1.0, 1.0), (0.0, 0.0))
        seed = int(torch.randint(2**31, (1,)))
        joined = QuadCollate()(
            [TrainItem(image, rows, path, whole, (seed, i)) for i, (image, rows, path, _) in enumerate(full)]
        )
        return joined.images, joined.targets, tuple(joined.paths), (None,) * len(joined.paths)


def _shapes(item: TrainItem, augmented: bool) -> Shapes:
    if augmented:
        return None
    (ratio_w, ratio_h), pad_wh = item.info.ratio_wh, item.info.pad_wh
    return item.info.original_hw, ((ratio_h, ratio_w), pad_wh)


class InfiniteDataLoader(DataLoader[Any]):
    """A data loader that keeps its workers from epoch to epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("persistent_workers", bool(kwargs.get("num_workers")))
        super().__init__(*args, **kwargs)


def create_dataloader(
    path: str | Path | Sequence[str | Path],
    imgsz: int,
    batch_size: int,
    stride: int,
    single_cls: bool = False,
    hyp: Mapping[str, Any] | None = None,
    augment: bool = False,
    cache: bool | str = False,
    pad: float = 0.0,
    rect: bool = False,
    rank: int = -1,
    workers: int = 8,
    image_weights: bool = False,
    quad: bool = False,
    prefix: str = "",
    shuffle: bool = False,
) -> tuple[InfiniteDataLoader, LoadImagesAndLabels]:
    """Build a :class:`LoadImagesAndLabels` and a data loader for it.

    Args:
        rank: of this process in distributed training, where each loads its part of the images; -1: a single process.
        workers: at most one per CPU is used.
        quad: join every four images.
        shuffle: without effect with ``rect``.
        others: as for the data set.

    Returns:
        The loader and the data set.
    """
    if rect and shuffle:
        LOG.warning("shuffle has no effect with rect: the images of a batch have one shape")
        shuffle = False
    dataset = LoadImagesAndLabels(
        path, imgsz, batch_size, augment, hyp, rect, image_weights, cache, single_cls, int(stride), pad, prefix
    )
    batch_size = min(batch_size, len(dataset))
    sampler: DistributedSampler[Item] | None = DistributedSampler(dataset, shuffle=shuffle) if rank != -1 else None
    loader = InfiniteDataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle and sampler is None,
        num_workers=max(0, min(workers, usable_cpus(), batch_size if batch_size > 1 else 0)),
        sampler=sampler,
        pin_memory=torch.cuda.is_available(),
        collate_fn=LoadImagesAndLabels.collate_fn4 if quad else LoadImagesAndLabels.collate_fn,
        worker_init_fn=init_worker,
    )
    return loader, dataset
