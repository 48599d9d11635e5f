"""Batches of a validation; their size does not change the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from utils.core.dist import ALONE, Ranks
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.records import LabelRecord
from utils.datasets.loader import build_loader

SHAPE_GROUP = 32  # images with one shape: the default batch size of v6.1, for equal metrics


def validation_loader(
    records: Sequence[LabelRecord],
    imgsz: int,
    stride: int,
    *,
    batch_size: int,
    workers: int,
    rect: bool = True,
    pad: float = 0.5,
    ranks: Ranks = ALONE,
    niceness: int = 0,
) -> DataLoader[Any]:
    """Build a loader of :class:`utils.datasets.loader.Batch` that yields every image once.

    Args:
        rect: sort the images by height / width, and give each group of 32 the smallest shape that fits them, plus
            ``pad`` strides. The padding of an image then depends on the data set, and not on ``batch_size`` as in v6.1.
            False: squares of ``imgsz``.
        ranks: processes, each of which gets a part of every batch.
        niceness: of the workers.
    """
    dataset = DetectionDataset(records, imgsz, rect=rect, batch_size=SHAPE_GROUP, stride=stride, pad=pad)
    groups = dataset.batch_shapes if rect else np.repeat(dataset.batch_shapes, -(-len(dataset) // SHAPE_GROUP), 0)
    batches = cut_by_shape(groups, len(dataset), batch_size)
    return build_loader(
        dataset, batch_size=batch_size, workers=workers, batches=batches, ranks=ranks, niceness=niceness
    )


def cut_by_shape(group_shapes: np.ndarray, count: int, batch_size: int) -> list[list[int]]:
    """Split the positions 0..``count`` into batches of at most ``batch_size`` images of one shape.

    ``group_shapes`` [groups, 2] are the shapes of groups of ``SHAPE_GROUP`` images; equal neighbours are joined.
    """
    batches: list[list[int]] = []
    shape = None
    for position in range(count):
        shape_here = tuple(group_shapes[position // SHAPE_GROUP])
        if shape_here != shape or len(batches[-1]) == batch_size:
            batches.append([])
            shape = shape_here
        batches[-1].append(position)
    return batches
