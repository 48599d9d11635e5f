"""The results of an evaluation, and their collection image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.metrics import ApResult, ConfusionMatrix
from utils.metrics.ap import ap_per_class

IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10, dtype=torch.float64)


@dataclass(frozen=True)
class ImageResult:
    """Detections and labels of one image, both in pixels of the image file.

    ``correct``: which detections are correct at each of ``IOU_THRESHOLDS``. ``hybrid``: detections of NMS with the
    labels added as candidates of confidence 1, if requested.
    """

    path: str
    hw: tuple[int, int]
    detections: Tensor  # [k, 6] xyxy, confidence, class
    labels: Tensor  # [n, 5] class, xyxy
    correct: np.ndarray  # bool [k, 10]
    hybrid: Tensor | None = None  # [h, 6]


@dataclass(frozen=True)
class EvalResult:
    """Metrics of one evaluation; the arrays in ``ap`` have the order of ``ap.classes``."""

    precision: float
    recall: float
    map50: float
    map: float
    losses: tuple[float, float, float]  # box, obj, cls; zeros without a loss function
    images: int
    labels: int
    detections: int
    ap: ApResult
    labels_per_class: np.ndarray  # [nc]
    images_per_class: np.ndarray  # [nc]
    confusion: ConfusionMatrix
    ms_per_image: dict[str, float] = field(default_factory=dict)

    def map_per_class(self, nc: int) -> np.ndarray:
        """Return the mAP@.5:.95 [nc] of every class; the mean for classes without labels."""
        values = np.full(nc, self.map)
        values[self.ap.classes] = self.ap.ap.mean(1)
        return values


class ImageStats(NamedTuple):
    """What the metrics need of one image."""

    place: tuple[int, int]  # batch and rank, which give the images of several processes the order of a single one
    correct: np.ndarray  # bool [k, 10]
    conf: np.ndarray  # [k]
    predicted: np.ndarray  # [k]
    true: np.ndarray  # [n]


@dataclass
class MetricsCollector:
    """Collects what the metrics need, image by image."""

    confusion: ConfusionMatrix
    images: list[ImageStats] = field(default_factory=list)
    losses: Tensor = field(default_factory=lambda: torch.zeros(3))  # sums over the batches
    batches: int = 0

    def add(self, result: ImageResult, place: tuple[int, int] = (0, 0)) -> None:
        """Add one image; ``place`` is its batch and rank."""
        conf, predicted = result.detections[:, 4].numpy(), result.detections[:, 5].numpy()
        self.images.append(ImageStats(place, result.correct, conf, predicted, result.labels[:, 0].numpy()))
        self.confusion.process_batch(result.detections, result.labels)

    @staticmethod
    def merge(parts: Sequence[MetricsCollector]) -> MetricsCollector:
        """Merge the images of several processes; losses are those of the first, since all have the same ones."""
        first = parts[0]
        confusion = ConfusionMatrix(first.confusion.nc, first.confusion.conf, first.confusion.iou_thres)
        confusion.matrix = np.sum([part.confusion.matrix for part in parts], axis=0)
        images = sorted((image for part in parts for image in part.images), key=lambda image: image.place)
        return MetricsCollector(confusion, images, first.losses, first.batches)

    def result(self, nc: int, ms_per_image: dict[str, float]) -> EvalResult:
        """Compute the metrics over all images."""
        correct = np.concatenate([np.zeros((0, len(IOU_THRESHOLDS)), bool), *(image.correct for image in self.images)])
        conf, predicted, true = (
            np.concatenate([np.zeros(0), *(getattr(image, name) for image in self.images)])
            for name in ("conf", "predicted", "true")
        )
        ap = ap_per_class(correct, conf, predicted, true)
        in_image = [np.unique(image.true.astype(int)) for image in self.images]  # each class once per image
        precision, recall, map50, map_ = ap.means()
        box, obj, cls = (self.losses / max(self.batches, 1)).tolist()
        return EvalResult(
            precision=precision,
            recall=recall,
            map50=map50,
            map=map_,
            losses=(box, obj, cls),
            images=len(self.images),
            labels=len(true),
            detections=len(conf),
            ap=ap,
            labels_per_class=np.bincount(true.astype(int), minlength=nc),
            images_per_class=np.bincount(np.concatenate([[], *in_image]).astype(int), minlength=nc),
            confusion=self.confusion,
            ms_per_image=ms_per_image,
        )
