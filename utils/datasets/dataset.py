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
from utils.datasets.augment.geometry import GREY, Sample, WarpRanges, draw_warp, warp_sample
from utils.datasets.augment.mosaic import arrange_four, arrange_nine
from utils.datasets.augment.optional import enabled_transforms
from utils.datasets.augment.pixels import (
    HsvJitter,
    copy_paste_sample,
    draw_jitter,
    flip_horizontal,
    flip_vertical,
    interleaved,
    mixup_samples,
    planes_of,
)
from utils.datasets.image_store import ImageStore
from utils.datasets.labels.records import LabelRecord


class ItemKey(NamedTuple):
    """Selects an item of a :class:`DetectionDataset`.

    Attributes:
        epoch: for which the item is made.
        image: number of its image; ~number: an empty image.
        repeat: how often the image was drawn before in this epoch.
        others: the other images of a mosaic, in this order; empty: drawn from the whole data set.
    """

    epoch: int
    image: int
    repeat: int = 0
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainItem:
    """``image`` [3, H, W] uint8 RGB; ``targets`` [n, 6] float32: 0, class, cx, cy, w, h in 0..1 of that image."""

    image: torch.Tensor
    targets: torch.Tensor
    path: str
    info: LetterboxInfo
    key: tuple[int, ...] = (0, 0)  # epoch, image and repeat of its ItemKey


def rect_batches(
    sizes_hw: Sequence[tuple[int, int]], batch_size: int, imgsz: int, stride: int, pad: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sort images by height/width and give every batch the smallest shape that holds its images.

    The long side is ``imgsz``; a batch that mixes wide and tall images is square.

    Args:
        sizes_hw: height and width of every image.
        batch_size: images per batch.
        imgsz: the long side in pixels.
        stride: the sides are multiples of it.
        pad: extra room in strides.

    Returns:
        ``order`` [n] (positions in ``sizes_hw``) and ``shapes`` [batches, 2] (height, width).
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
    """Images with boxes; ``dataset[ItemKey(epoch, image)]`` is one training or validation item.

    Every random choice of an item comes from its key and a generator seeded by (seed, epoch, image, repeat): an item is
    the same whichever process makes it, in any order. A negative image number means an empty image without path, of the
    shape that image ~number has in its batch.

    Args:
        records: the images and their labels.
        imgsz: side of the items in pixels, a multiple of ``stride``.
        augment: make training items.
        hyp: hyper-parameters of the augmentation.
        rect: sort the records by shape (``records`` is in the new order) and make no mosaics.
        batch_size: of the loader; needed for ``rect``.
        stride: of the model, in pixels.
        pad: of ``rect``, in strides.
        seed: of the augmentation.
        cache_images: see :class:`ImageStore`.
        cache_dir: see :class:`ImageStore`.

    Raises:
        InputError: the image size is no multiple of the stride.
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
        self._warp_ranges = WarpRanges(
            degrees=self.hyp.degrees,
            translate=self.hyp.translate,
            scale=self.hyp.scale,
            shear=self.hyp.shear,
            perspective=self.hyp.perspective,
        )
        self._transforms = enabled_transforms(self.hyp) if augment else []
        self._images = ImageStore(self.records, imgsz, training=augment, cache=cache_images, folder=cache_dir)
        # All boxes as fractions: [N, 5] class, x1, y1, x2, y2; those of record i begin at row _first[i].
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
        """Keep so many of the images decoded last; the loader knows how many help and fit into memory."""
        self._images.keep_recent(images)

    @property
    def keeps_all(self) -> bool:
        """Whether all images are decoded already, in memory or on disk."""
        return self._images.keeps_all

    def __getitem__(self, key: ItemKey | tuple[int, int] | int) -> TrainItem:
        epoch, image, repeat, others = ItemKey(0, key) if isinstance(key, int) else ItemKey(*key)
        if image < 0:
            return _empty_item(self._shape_hw(~image), (epoch, ~image))
        seed = (epoch, image, repeat)
        if not self.augment:
            return _to_item(self._letterbox_sample(image), seed)
        rng = np.random.default_rng((self.seed, *seed))
        hyp = self.hyp
        jitter = draw_jitter(hyp.hsv_h, hyp.hsv_s, hyp.hsv_v, rng)
        mosaic_draw, mixup_draw, flipud_draw, fliplr_draw = rng.random(4).tolist()
        if mosaic_draw < self._mosaic:
            following = iter(others or self._random_images(rng))
            if mixup_draw < hyp.mixup:
                first = self._mosaic_sample(image, following, rng)
                sample = mixup_samples(first, self._mosaic_sample(next(following), following, rng), rng)
            else:
                sample, jitter = self._mosaic_sample(image, following, rng, jitter), None
        else:
            sample = self._letterbox_sample(image)
            sample = warp_sample(sample, None, self._warp_ranges, rng)
        if jitter is not None:
            sample = replace(sample, image=jitter(sample.image))
        for probability, transform in self._transforms:
            if rng.random() < probability:
                sample = transform(replace(sample, image=interleaved(sample.image)), rng)
        if flipud_draw < hyp.flipud:
            sample = flip_vertical(sample)
        if fliplr_draw < hyp.fliplr:
            sample = flip_horizontal(sample)
        # The letterbox says nothing about a cropped or warped image.
        height, width = sample.image.shape[:2]
        return _to_item(replace(sample, info=LetterboxInfo((height, width), (1.0, 1.0), (0.0, 0.0))), seed)

    def _random_images(self, rng: np.random.Generator) -> Iterator[int]:
        """Yield images of the whole data set, without end."""
        while True:
            yield int(rng.integers(len(self)))

    # Samples ----------------------------------------------------------------------------------------------------------

    def _boxes(self, index: int) -> np.ndarray:
        """Return the boxes [n, 5] of a record, class and corners as fractions; a view, not to be changed."""
        return self._corners[self._first[index] : self._first[index + 1]]

    def _sample(self, index: int, image: np.ndarray, info: LetterboxInfo, inner_wh: tuple[float, float]) -> Sample:
        """Make a sample with labels in pixels; ``inner_wh`` is the size of ``image`` without padding."""
        record = self.records[index]
        boxes = self._boxes(index).copy()
        boxes[:, 1:] = boxes[:, 1:] * np.array(inner_wh * 2) + np.array(info.pad_wh * 2)
        segments = [xyn2xy(polygon, *inner_wh, *info.pad_wh) for polygon in record.segments]
        return Sample(image, boxes, segments, str(record.image), info)

    def _shape_hw(self, index: int) -> tuple[int, int]:
        """Return the shape of the batch that image ``index`` is in."""
        height, width = self.batch_shapes[index // self.batch_size if self.rect else 0].tolist()
        return height, width

    def _letterbox_sample(self, index: int) -> Sample:
        """Resize an image and pad it to the shape of its batch."""
        image, original_hw = self._images.read(index, enlarge=False)
        height, width = image.shape[:2]
        image, ratio_wh, pad_wh = letterbox(image, self._shape_hw(index), auto=False, scaleup=self.augment)
        inner_wh = width * ratio_wh[0], height * ratio_wh[1]
        total_wh = inner_wh[0] / original_hw[1], inner_wh[1] / original_hw[0]
        return self._sample(index, image, LetterboxInfo(original_hw, total_wh, pad_wh), inner_wh)

    def _mosaic_sample(
        self, index: int, others: Iterator[int], rng: np.random.Generator, jitter: HsvJitter | None = None
    ) -> Sample:
        """Join image ``index`` and the next of ``others`` in random order on a canvas, and warp a random part of it.

        Pixels come last: only visible images are decoded, and the canvas is made only if there is no other way.
        """
        hyp, size, images = self.hyp, self.imgsz, self._images
        nine = bool(hyp.mosaic9) and rng.random() < hyp.mosaic9
        chosen = rng.permutation([index, *islice(others, 8 if nine else 3)]).tolist()
        layout = (arrange_nine if nine else arrange_four)([images.sizes_hw[i] for i in chosen], size, rng)
        tile_boxes = [self._boxes(i) for i in chosen]
        boxes = layout.place_boxes(tile_boxes)
        segments = layout.place_segments([self.records[i].segments for i in chosen], tile_boxes)
        side, path = layout.side, str(self.records[index].image)
        info = LetterboxInfo((side, side), (1.0, 1.0), (0.0, 0.0))

        def read(tile: int, enlarge: bool = True) -> np.ndarray:
            return images.read(chosen[tile], enlarge)[0]

        if hyp.copy_paste and segments:  # objects may come from anywhere: the whole canvas is needed
            canvas = Sample(layout.paint((0, 0, side, side), read), boxes, segments, path, info)
            canvas = copy_paste_sample(canvas, hyp.copy_paste, rng)
            sample = warp_sample(canvas, (size, size), self._warp_ranges, rng)
        else:
            warp = draw_warp((side, side), (size, size), self._warp_ranges, rng)
            if warp.window is not None:
                enlargement = layout.enlarge(warp, [images.stored_hw[i] for i in chosen])
                of_boxes = enlargement.scale_shift.repeat([len(rows) for rows in tile_boxes], axis=0)  # [n, 2, 2]
                boxes, segments = warp.move_labels(boxes, segments, of_boxes)
                return Sample(enlargement.paint(partial(read, enlarge=False), jitter), boxes, segments, path, info)
            window = warp.source_window()
            part = layout.paint(window, read)
            boxes, segments = warp.move_labels(boxes, segments)
            sample = Sample(warp.apply(part, window[:2]), boxes, segments, path, info)
        return sample if jitter is None else replace(sample, image=jitter(sample.image))


def _empty_item(hw: tuple[int, int], key: tuple[int, ...]) -> TrainItem:
    """Make an item of padding only, without boxes."""
    image = torch.full((3, *hw), GREY[0], dtype=torch.uint8)
    return TrainItem(image, torch.zeros(0, 6), "", LetterboxInfo(hw, (1.0, 1.0), (0.0, 0.0)), key)


def _to_item(sample: Sample, key: tuple[int, ...]) -> TrainItem:
    """Normalize the boxes and turn the image into RGB, channels first, in at most one copy."""
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
