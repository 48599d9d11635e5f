"""The data set of pictures and boxes, for training (augmented) and validation (letterboxed)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from utils.augmentations import (
    Sample,
    augment_hsv,
    copy_paste,
    flip_horizontal,
    flip_vertical,
    mixup,
    random_perspective,
)
from utils.boxes import xyn2xy, xywhn2xyxy, xyxy2xywhn
from utils.config.hyp import Hyp
from utils.datasets.labels import LabelRecord
from utils.datasets.mosaic import mosaic4
from utils.errors import InputError
from utils.image import LetterboxInfo, letterbox, read_image

__all__ = ["DetectionDataset", "Sample", "TrainItem", "rect_batches"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainItem:
    """``image`` [3, H, W] uint8 RGB; ``targets`` [n, 6] float32: 0, class, cx, cy, w, h in 0..1 of that image."""

    image: torch.Tensor
    targets: torch.Tensor
    path: str
    info: LetterboxInfo


def rect_batches(
    sizes_hw: Sequence[tuple[int, int]], batch_size: int, imgsz: int, stride: int, pad: float
) -> tuple[np.ndarray, np.ndarray]:
    """Order pictures by height/width and give every batch the smallest shape that holds its pictures.

    Returns ``order`` [n] (positions in ``sizes_hw``) and ``shapes`` [batches, 2] (height, width), multiples of
    ``stride``, with ``pad`` strides of room. The long side is ``imgsz``; a batch that mixes wide and tall pictures
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
    """Pictures with boxes; ``dataset[(epoch, index)]`` is one training or validation item.

    Every random choice of an item comes from a generator seeded by (seed, epoch, index): an item is the same whoever
    computes it, in whatever order. ``rect`` sorts the records by shape, so that ``records`` is in the order served,
    and turns the mosaic off; it needs the ``batch_size`` of the loader. ``cache_images="ram"`` decodes all once.
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
    ) -> None:
        if cache_images not in (None, "", "ram"):
            raise InputError(f"picture cache '{cache_images}' is not known; 'ram' is")
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
        self._decoded: list[tuple[np.ndarray, tuple[int, int]]] = []
        if cache_images:
            self._decode_all()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int] | int) -> TrainItem:
        epoch, index = (0, key) if isinstance(key, int) else key
        rng = np.random.default_rng((self.seed, epoch, index))
        if self._mosaic and rng.random() < self._mosaic:
            sample = self._mosaic_sample(index, rng)
            if rng.random() < self.hyp.mixup:
                sample = mixup(sample, self._mosaic_sample(int(rng.integers(len(self))), rng), rng)
        else:
            sample = self._letterbox_sample(index)
            if self.augment:
                sample = self._perspective(sample, 0, rng)
        if self.augment:
            sample = self._finish(sample, rng)
        return _to_item(sample)

    # Pictures ---------------------------------------------------------------------------------------------------------

    def _decode(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Read a picture, its long side resized to ``imgsz``; also return its original (height, width)."""
        path = self.records[index].image
        try:
            image = read_image(path)
        except FileNotFoundError:
            raise InputError(f"{path}: this picture was there at the start and is gone now; put it back") from None
        height, width = image.shape[:2]
        ratio = self.imgsz / max(height, width)
        if ratio != 1:
            smooth = cv2.INTER_LINEAR if self.augment or ratio > 1 else cv2.INTER_AREA
            size_wh = max(int(width * ratio), 1), max(int(height * ratio), 1)
            image = cv2.resize(image, size_wh, interpolation=smooth)
        return image, (height, width)

    def _decode_all(self) -> None:
        with ThreadPoolExecutor(8) as pool:  # decoding happens outside the interpreter lock
            self._decoded = list(pool.map(self._decode, range(len(self))))
        size = sum(image.nbytes for image, _ in self._decoded)
        logger.info("%d pictures kept in memory, %.0f MB", len(self), size / 1e6)

    def _picture(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        return self._decoded[index] if self._decoded else self._decode(index)

    # Samples ----------------------------------------------------------------------------------------------------------

    def _sample(self, index: int, image: np.ndarray, info: LetterboxInfo, inner_wh: tuple[float, float]) -> Sample:
        """Join a picture and its labels in pixels; ``inner_wh`` is the part of ``image`` without padding."""
        record = self.records[index]
        (width, height), (pad_x, pad_y) = inner_wh, info.pad_wh
        boxes = record.boxes.copy()
        boxes[:, 1:] = xywhn2xyxy(boxes[:, 1:], width, height, pad_x, pad_y)
        segments = [xyn2xy(polygon, width, height, pad_x, pad_y) for polygon in record.segments]
        return Sample(image, boxes, segments, str(record.image), info)

    def _plain_sample(self, index: int) -> Sample:
        """One resized picture without padding."""
        image, original_hw = self._picture(index)
        height, width = image.shape[:2]
        ratio_wh = width / original_hw[1], height / original_hw[0]
        return self._sample(index, image, LetterboxInfo(original_hw, ratio_wh, (0.0, 0.0)), (width, height))

    def _letterbox_sample(self, index: int) -> Sample:
        """One resized picture padded to the shape of its batch."""
        image, original_hw = self._picture(index)
        height, width = image.shape[:2]
        shape = self.batch_shapes[index // self.batch_size if self.rect else 0]
        image, ratio_wh, pad_wh = letterbox(image, (int(shape[0]), int(shape[1])), auto=False, scaleup=self.augment)
        inner_wh = width * ratio_wh[0], height * ratio_wh[1]
        total_wh = inner_wh[0] / original_hw[1], inner_wh[1] / original_hw[0]
        return self._sample(index, image, LetterboxInfo(original_hw, total_wh, pad_wh), inner_wh)

    def _mosaic_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Picture ``index`` and three random ones in random places, cropped at random to ``imgsz``."""
        chosen = rng.permutation([index, *rng.integers(len(self), size=3)])
        canvas = mosaic4([self._plain_sample(int(i)) for i in chosen], self.imgsz, rng)
        if self.hyp.copy_paste:
            canvas = copy_paste(canvas, self.hyp.copy_paste, rng)
        return self._perspective(replace(canvas, path=str(self.records[index].image)), -self.imgsz // 2, rng)

    def _perspective(self, sample: Sample, border: int, rng: np.random.Generator) -> Sample:
        hyp = self.hyp
        return random_perspective(
            sample,
            degrees=hyp.degrees,
            translate=hyp.translate,
            scale=hyp.scale,
            shear=hyp.shear,
            perspective=hyp.perspective,
            border=border,
            rng=rng,
        )

    def _finish(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Colours and flips. The letterbox of a cropped or warped picture means nothing: the info becomes neutral."""
        hyp = self.hyp
        image = augment_hsv(sample.image, hyp.hsv_h, hyp.hsv_s, hyp.hsv_v, rng)
        height, width = image.shape[:2]
        sample = replace(sample, image=image, info=LetterboxInfo((height, width), (1.0, 1.0), (0.0, 0.0)))
        if rng.random() < hyp.flipud:
            sample = flip_vertical(sample)
        if rng.random() < hyp.fliplr:
            sample = flip_horizontal(sample)
        return sample


def _to_item(sample: Sample) -> TrainItem:
    """Normalise the boxes and turn the picture into RGB, channels first, in one copy."""
    height, width = sample.image.shape[:2]
    targets = torch.zeros(len(sample.boxes), 6)
    if len(sample.boxes):
        targets[:, 1] = torch.from_numpy(sample.boxes[:, 0])
        normalised = xyxy2xywhn(sample.boxes[:, 1:], width, height, clip=True, eps=1e-3)
        targets[:, 2:] = torch.from_numpy(np.ascontiguousarray(normalised))
    image = np.ascontiguousarray(sample.image[..., ::-1].transpose(2, 0, 1))
    return TrainItem(torch.from_numpy(image), targets, sample.path, sample.info)
