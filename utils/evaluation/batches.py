"""The batches of a validation, whose size does not change the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from utils.core.dist import ALONE, Ranks
from utils.datasets.dataset import DetectionDataset
from utils.datasets.label_records import LabelRecord
from utils.datasets.loader import build_loader

SHAPE_GROUP = 32  # images that share one shape: v6.1's default batch, so that its figures come out


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
    """A loader of :class:`utils.datasets.loader.Batch` that serves every image once.

    With ``rect``, images are sorted by height/width and every 32 of them get the smallest shape that holds them, with
    ``pad`` strides of room. Which grey border an image has then depends on the set alone and not on ``batch_size``,
    as it did in v6.1. Otherwise all are squares of ``imgsz``. Of several processes each gets its part of every batch.
    ``niceness``: of the workers.
    """
    dataset = DetectionDataset(records, imgsz, rect=rect, batch_size=SHAPE_GROUP, stride=stride, pad=pad)
    groups = dataset.batch_shapes if rect else np.repeat(dataset.batch_shapes, -(-len(dataset) // SHAPE_GROUP), 0)
    batches = cut_by_shape(groups, len(dataset), batch_size)
    return build_loader(
        dataset, batch_size=batch_size, workers=workers, batches=batches, ranks=ranks, niceness=niceness
    )


def cut_by_shape(group_shapes: np.ndarray, count: int, batch_size: int) -> list[list[int]]:
    """Positions 0..``count`` cut into batches of at most ``batch_size``, each of one shape.

    ``group_shapes`` [groups, 2] are the shapes of every ``SHAPE_GROUP`` images; neighbours of one shape are joined.
    """
    batches: list[list[int]] = []
    shape = None
    for position in range(count):
        now = tuple(group_shapes[position // SHAPE_GROUP])
        if now != shape or len(batches[-1]) == batch_size:
            batches.append([])
            shape = now
        batches[-1].append(position)
    return batches
