"""What an evaluation gathers image by image, and the figures made of it."""

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
    """Detections and labels of one image, both in pixels of the image as it is on disk.

    ``correct`` tells which detections are right at each of ``IOU_THRESHOLDS``. ``hybrid`` is what suppression leaves
    of the detections when the labels enter it with confidence 1; only where the evaluator was asked for it.
    """

    path: str
    hw: tuple[int, int]
    detections: Tensor  # [k, 6] xyxy, confidence, class
    labels: Tensor  # [n, 5] class, xyxy
    correct: np.ndarray  # bool [k, 10]
    hybrid: Tensor | None = None  # [h, 6]


@dataclass(frozen=True)
class EvalResult:
    """Figures of one evaluation. Arrays per class follow ``ap.classes``."""

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

    def maps(self, nc: int) -> np.ndarray:
        """[nc] mAP@.5:.95 of every class, the mean for classes without labels."""
        maps = np.full(nc, self.map)
        maps[self.ap.classes] = self.ap.ap.mean(1)
        return maps


class Scored(NamedTuple):
    """What counts of one image."""

    place: tuple[int, int]  # batch and rank, so that images from several processes get the order of a single one
    correct: np.ndarray  # bool [k, 10]
    conf: np.ndarray  # [k]
    predicted: np.ndarray  # [k]
    true: np.ndarray  # [n]


@dataclass
class Tally:
    """What is gathered image by image."""

    confusion: ConfusionMatrix
    pictures: list[Scored] = field(default_factory=list)
    losses: Tensor = field(default_factory=lambda: torch.zeros(3))  # sums over the batches
    batches: int = 0

    def add(self, result: ImageResult, place: tuple[int, int] = (0, 0)) -> None:
        """Note one image, found in a batch by a process."""
        conf, predicted = result.detections[:, 4].numpy(), result.detections[:, 5].numpy()
        self.pictures.append(Scored(place, result.correct, conf, predicted, result.labels[:, 0].numpy()))
        self.confusion.process_batch(result.detections, result.labels)

    @staticmethod
    def joined(parts: Sequence[Tally]) -> Tally:
        """The tally of all images from those of several processes, at least one.

        Losses are taken from the first: every process knows those of the whole batch.
        """
        first = parts[0]
        confusion = ConfusionMatrix(first.confusion.nc, first.confusion.conf, first.confusion.iou_thres)
        confusion.matrix = np.sum([part.confusion.matrix for part in parts], axis=0)
        pictures = sorted((scored for part in parts for scored in part.pictures), key=lambda scored: scored.place)
        return Tally(confusion, pictures, first.losses, first.batches)

    def figures(self, nc: int, ms_per_image: dict[str, float]) -> EvalResult:
        """The figures over all images noted so far."""
        correct = np.concatenate([np.zeros((0, len(IOU_THRESHOLDS)), bool), *(p.correct for p in self.pictures)])
        conf, predicted, true = (
            np.concatenate([np.zeros(0), *(getattr(p, name) for p in self.pictures)])
            for name in ("conf", "predicted", "true")
        )
        ap = ap_per_class(correct, conf, predicted, true)
        in_image = [
            np.unique(classes.astype(int)) for classes in (p.true for p in self.pictures)
        ]  # each class once per image
        precision, recall, map50, map_ = ap.means()
        box, obj, cls = (self.losses / max(self.batches, 1)).tolist()
        return EvalResult(
            precision=precision,
            recall=recall,
            map50=map50,
            map=map_,
            losses=(box, obj, cls),
            images=len(self.pictures),
            labels=len(true),
            detections=len(conf),
            ap=ap,
            labels_per_class=np.bincount(true.astype(int), minlength=nc),
            images_per_class=np.bincount(np.concatenate([[], *in_image]).astype(int), minlength=nc),
            confusion=self.confusion,
            ms_per_image=ms_per_image,
        )
