"""The data set of images and boxes, for training (augmented) and validation (letterboxed)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.config.hyp import Hyp
from utils.core.boxes import xyn2xy, xywh2xyxy
from utils.core.errors import InputError
from utils.core.image import LetterboxInfo, letterbox
from utils.datasets.augment import (
    GREY,
    Jitter,
    Sample,
    copy_paste,
    draw_jitter,
    draw_warp,
    flip_horizontal,
    flip_vertical,
    interleaved,
    mixup,
    planes_of,
    random_perspective,
)
from utils.datasets.images import Images
from utils.datasets.labels import LabelRecord
from utils.datasets.mosaic import lay_four, lay_nine, place_segments
from utils.datasets.optional_augment import chosen_effects

__all__ = ["DetectionDataset", "Key", "Sample", "TrainItem", "rect_batches"]


class Key(NamedTuple):
    """What an item is asked for by.

    Attributes:
        epoch: for which an item is made.
        image: its index; ~image: a blank one.
        turn: how often the image has come before in this epoch.
        partners: what else a mosaic is made of, in this order; empty: drawn from the whole data set.
    """

    epoch: int
    image: int
    turn: int = 0
    partners: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainItem:
    """``image`` [3, H, W] uint8 RGB; ``targets`` [n, 6] float32: 0, class, cx, cy, w, h in 0..1 of that image."""

    image: torch.Tensor
    targets: torch.Tensor
    path: str
    info: LetterboxInfo
    key: tuple[int, ...] = (0, 0)  # epoch, index and turn it was asked for by


def rect_batches(
    sizes_hw: Sequence[tuple[int, int]], batch_size: int, imgsz: int, stride: int, pad: float
) -> tuple[np.ndarray, np.ndarray]:
    """Order images by height/width and give every batch the smallest shape that holds its images.

    Returns ``order`` [n] (positions in ``sizes_hw``) and ``shapes`` [batches, 2] (height, width), multiples of
    ``stride``, with ``pad`` strides of room. The long side is ``imgsz``; a batch that mixes wide and tall images
    is square.
    """
    hw = np.array(sizes_hw, np.float64).reshape(-1, 2)
    aspect = hw[:, 0] / hw[:, 1]
    order = aspect.argsort()
    shapes = []
    for start in range(0, len(order), batch_size):
        of_batch = aspect[order[start : start + batch_size]]
        flattest, tallest = of_batch.min(), of_batch.max()
        if tallest < 1:
            shapes.append((tallest, 1.0))
        elif flattest > 1:
            shapes.append((1.0, 1.0 / flattest))
        else:
            shapes.append((1.0, 1.0))
    cells = np.ceil(np.array(shapes).reshape(-1, 2) * imgsz / stride + pad)
    return order, cells.astype(int) * stride


class DetectionDataset(Dataset[TrainItem]):
    """Images with boxes; ``dataset[Key(epoch, index)]`` is one training or validation item.

    Every random choice of an item comes from its key and a generator seeded by (seed, epoch, index, turn): an item is
    the same whoever computes it, in whatever order. ``rect`` sorts the records by shape, so that ``records`` is in the
    order served, and turns the mosaic off; it needs the ``batch_size`` of the loader. A negative index stands for a
    blank image without path, of the shape that ~index has in its batch. ``cache_images`` and ``cache_dir`` are those
    of :class:`Images`.
    """

    def __init__(
        self,
        records: Sequence[LabelRecord],
        imgsz: int = 640,
        *,
        augment: bool = False,
        hyp: Hyp | None = None,
        rect: bool = False,
        batch_size: int = 16,
        stride: int = 32,
        pad: float = 0.0,
        seed: int = 0,
        cache_images: str | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        if imgsz < stride or imgsz % stride:
            raise InputError(f"image size {imgsz} is not a multiple of the stride {stride}")
        self.records = list(records)
        self.imgsz = imgsz
        self.augment = augment
        self.hyp = hyp or Hyp()
        self.rect = rect
        self.batch_size = batch_size
        self.seed = seed
        self.batch_shapes = np.array([[imgsz, imgsz]])  # [batches, 2] height, width; one for all without rect
        if rect:
            sizes = [record.hw for record in self.records]
            order, self.batch_shapes = rect_batches(sizes, batch_size, imgsz, stride, pad)
            self.records = [self.records[i] for i in order]
        self._mosaic = self.hyp.mosaic if augment and not rect else 0.0
        self._effects = chosen_effects(self.hyp) if augment else []
        self._images = Images(self.records, imgsz, training=augment, cache=cache_images, folder=cache_dir)
        # All corners once, as fractions: [N, 5] class, x1, y1, x2, y2; those of record i begin at row _first[i].
        rows = [record.boxes for record in self.records]
        self._first = np.cumsum([0, *map(len, rows)])
        self._corners = np.concatenate([np.zeros((0, 5), np.float32), *rows]).astype(np.float32)
        self._corners[:, 1:] = xywh2xyxy(self._corners[:, 1:])

    def __len__(self) -> int:
        return len(self.records)

    @property
    def makes_mosaics(self) -> bool:
        """Whether items may be made of several images."""
        return self._mosaic > 0

    def keep_recent(self, images: int) -> None:
        """Keep so many of the images decoded last; a loader knows how many help and how many memory is free for."""
        self._images.keep_recent(images)

    @property
    def keeps_all(self) -> bool:
        """Whether all decoded images are at hand anyway, in memory or on disk."""
        return self._images.keeps_all

    def __getitem__(self, key: Key | tuple[int, int] | int) -> TrainItem:
        epoch, index, turn, partners = Key(0, key) if isinstance(key, int) else Key(*key)
        if index < 0:
            return _blank(self._shape_hw(~index), (epoch, ~index))
        asked = (epoch, index, turn)
        rng = np.random.default_rng((self.seed, *asked))
        if not self.augment:
            return _to_item(self._letterbox_sample(index), asked)
        hyp = self.hyp
        jitter = draw_jitter(hyp.hsv_h, hyp.hsv_s, hyp.hsv_v, rng)
        of_mosaic, of_mixup, upside_down, mirrored = rng.random(4).tolist()
        if of_mosaic < self._mosaic:
            others = iter(partners or self._drawn(rng))
            if of_mixup < hyp.mixup:
                first = self._mosaic_sample(index, others, rng)
                sample = mixup(first, self._mosaic_sample(next(others), others, rng), rng)
            else:
                sample, jitter = self._mosaic_sample(index, others, rng, jitter), None
        else:
            sample = self._letterbox_sample(index)
            sample = self._warp(sample, (sample.image.shape[0], sample.image.shape[1]), rng)
        if jitter is not None:
            sample = replace(sample, image=jitter(sample.image))
        for probability, effect in self._effects:
            if rng.random() < probability:
                sample = effect(replace(sample, image=interleaved(sample.image)), rng)
        if upside_down < hyp.flipud:
            sample = flip_vertical(sample)
        if mirrored < hyp.fliplr:
            sample = flip_horizontal(sample)
        # The letterbox of a cropped or warped image means nothing any more.
        height, width = sample.image.shape[:2]
        return _to_item(replace(sample, info=LetterboxInfo((height, width), (1.0, 1.0), (0.0, 0.0))), asked)

    def _drawn(self, rng: np.random.Generator) -> Iterator[int]:
        """Images of the whole data set, without end."""
        while True:
            yield int(rng.integers(len(self)))

    # Samples ----------------------------------------------------------------------------------------------------------

    def _boxes(self, index: int) -> np.ndarray:
        """Boxes [n, 5] of a record: class and corners as fractions; not to be changed."""
        return self._corners[self._first[index] : self._first[index + 1]]

    def _sample(self, index: int, image: np.ndarray, info: LetterboxInfo, inner_wh: tuple[float, float]) -> Sample:
        """Join an image and its labels in pixels; ``inner_wh`` is the part of ``image`` without padding."""
        record = self.records[index]
        boxes = self._boxes(index).copy()
        boxes[:, 1:] = boxes[:, 1:] * np.array(inner_wh * 2) + np.array(info.pad_wh * 2)
        segments = [xyn2xy(polygon, *inner_wh, *info.pad_wh) for polygon in record.segments]
        return Sample(image, boxes, segments, str(record.image), info)

    def _shape_hw(self, index: int) -> tuple[int, int]:
        """Shape of the batch that image ``index`` is in."""
        height, width = self.batch_shapes[index // self.batch_size if self.rect else 0].tolist()
        return height, width

    def _letterbox_sample(self, index: int) -> Sample:
        """One resized image padded to the shape of its batch."""
        image, original_hw = self._images.load(index, enlarge=False)
        height, width = image.shape[:2]
        image, ratio_wh, pad_wh = letterbox(image, self._shape_hw(index), auto=False, scaleup=self.augment)
        inner_wh = width * ratio_wh[0], height * ratio_wh[1]
        total_wh = inner_wh[0] / original_hw[1], inner_wh[1] / original_hw[0]
        return self._sample(index, image, LetterboxInfo(original_hw, total_wh, pad_wh), inner_wh)

    def _mosaic_sample(
        self, index: int, others: Iterator[int], rng: np.random.Generator, jitter: Jitter | None = None
    ) -> Sample:
        """Image ``index`` and the next of ``others`` in random places of a canvas, of which a random part is kept.

        Pixels come last: only what is seen is decoded, and the canvas is not made if there is a way round it.
        """
        hyp, size, images = self.hyp, self.imgsz, self._images
        nine = bool(hyp.mosaic9) and rng.random() < hyp.mosaic9
        chosen = rng.permutation([index, *islice(others, 8 if nine else 3)]).tolist()
        sizes_hw = [images.sizes_hw[i] for i in chosen]
        layout = (lay_nine if nine else lay_four)(sizes_hw, size, rng)
        tile_boxes = [self._boxes(i) for i in chosen]
        boxes = layout.place_boxes(tile_boxes, fractions=True)
        segments = place_segments(layout, [self.records[i].segments for i in chosen], tile_boxes)
        side, path = layout.side, str(self.records[index].image)
        info = LetterboxInfo((side, side), (1.0, 1.0), (0.0, 0.0))

        def load(tile: int, rows: float, enlarge: bool = True) -> np.ndarray:
            return images.load(chosen[tile], rows, enlarge)[0]

        if hyp.copy_paste and segments:  # objects may come from anywhere: the whole canvas is needed
            canvas = Sample(layout.paint((0, 0, side, side), load), boxes, segments, path, info)
            sample = self._warp(copy_paste(canvas, hyp.copy_paste, rng), (size, size), rng)
        else:
            warp = draw_warp((side, side), (size, size), rng=rng, **self._ranges())
            if warp.window is not None:
                plan = layout.enlarge(warp, [images.kept_hw[i] for i in chosen])
                of_rows = plan.scale_shift.repeat([len(rows) for rows in tile_boxes], axis=0)  # [n, 2, 2]
                boxes, segments = warp.move_labels(boxes, segments, of_rows)
                return Sample(plan.paint(partial(load, enlarge=False), jitter), boxes, segments, path, info)
            window = warp.source()
            part = layout.paint(window, load)
            boxes, segments = warp.move_labels(boxes, segments)
            sample = Sample(warp.apply(part, window[:2]), boxes, segments, path, info)
        return sample if jitter is None else replace(sample, image=jitter(sample.image))

    def _ranges(self) -> dict[str, float]:
        """The geometry of the hyper-parameters."""
        names = ("degrees", "translate", "scale", "shear", "perspective")
        return {name: getattr(self.hyp, name) for name in names}

    def _warp(self, sample: Sample, out_hw: tuple[int, int], rng: np.random.Generator) -> Sample:
        return random_perspective(sample, out_hw, rng=rng, **self._ranges())


def _blank(hw: tuple[int, int], key: tuple[int, ...]) -> TrainItem:
    """An image of padding, with nothing on it."""
    image = torch.full((3, *hw), GREY[0], dtype=torch.uint8)
    return TrainItem(image, torch.zeros(0, 6), "", LetterboxInfo(hw, (1.0, 1.0), (0.0, 0.0)), key)


def _to_item(sample: Sample, key: tuple[int, ...]) -> TrainItem:
    """Normalise the boxes and turn the image into RGB, channels first, in one copy at most."""
    height, width = sample.image.shape[:2]
    rows = np.zeros((len(sample.boxes), 6), np.float32)
    if len(rows):
        limits = np.array((width, height), np.float32)
        # Just inside the far edges, so that centres stay below 1.
        corners = np.minimum(sample.boxes[:, 1:].reshape(-1, 2, 2), limits - np.float32(1e-3))
        low, high = np.maximum(corners[:, 0], 0), corners[:, 1]
        rows[:, 1] = sample.boxes[:, 0]
        rows[:, 2:4] = (low + high) / (2 * limits)
        rows[:, 4:6] = (high - low) / limits
    targets = torch.from_numpy(rows)
    return TrainItem(torch.from_numpy(planes_of(sample.image)), targets, sample.path, sample.info, key)
