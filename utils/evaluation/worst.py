"""Images with the most errors: ``images.csv`` counts the errors of every image, ``worst.jpg`` shows the worst."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.core.boxes import box_iou
from utils.core.image import read_image
from utils.core.nms_defaults import CONF_THRES
from utils.core.output import write_table
from utils.evaluation.evaluator import Observer
from utils.evaluation.results import ImageResult
from utils.plots.worst import ImageErrors, plot_worst


@dataclass(frozen=True)
class ErrorCounts:
    """Objects of one image that are detected and missed, and false detections, at one confidence and IoU 0.5."""

    path: str
    detected: int
    missed: int
    false: int

    @property
    def errors(self) -> int:
        """Missed objects and false detections."""
        return self.missed + self.false


class WorstImages(Observer):
    """Counts the errors of every image and keeps the images with the most errors.

    Args:
        conf: ignore detections up to this confidence.
        keep: number of images to draw.
    """

    def __init__(self, names: Sequence[str], conf: float = CONF_THRES, keep: int = 16) -> None:
        self.names, self.conf, self.keep = names, conf, keep
        self.counts: list[ErrorCounts] = []
        self._worst: list[
            tuple[int, int, ErrorCounts, ImageErrors]
        ] = []  # a heap: the image with the fewest errors first

    def on_image(self, result: ImageResult) -> None:
        """Count the errors, and keep the boxes if the image is among the worst so far."""
        kept = (result.detections[:, 4] > self.conf).numpy()
        detections, correct = result.detections[kept].numpy(), result.correct[kept, 0]
        missed = ~_matched_labels(result.labels.numpy(), detections[correct])
        counts = ErrorCounts(result.path, int(correct.sum()), int(missed.sum()), int((~correct).sum()))
        self.counts.append(counts)
        entry = counts.errors, -len(self.counts)
        if counts.errors and (len(self._worst) < self.keep or entry > self._worst[0][:2]):
            case = ImageErrors(result.path, result.labels.numpy(), missed, detections, correct)
            heapq.heappush(self._worst, (*entry, counts, case))
            if len(self._worst) > self.keep:
                heapq.heappop(self._worst)

    def save(self, folder: Path) -> None:
        """Write ``images.csv``, the worst images first, and ``worst.jpg`` if there are errors."""
        ordered = sorted(self.counts, key=lambda c: (-c.errors, c.path))
        head = ("image", "found", "missed", "false_positives")
        write_table(folder / "images.csv", [head, *((c.path, c.detected, c.missed, c.false) for c in ordered)])
        errors = [case for _, _, _, case in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]
        if errors:
            plot_worst(errors, lambda path: read_image(Path(path)), self.names, folder / "worst.jpg")


def _matched_labels(labels: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return which labels [n, 5] match the correct detections [h, 6], each of which has one: bool [n]."""
    matched = np.zeros(len(labels), dtype=bool)
    overlap = box_iou(correct[:, :4], labels[:, 1:])  # [h, n]
    overlap[correct[:, 5:] != labels[:, 0]] = -1.0
    for row in overlap:  # best detections first, as in matching
        matched[np.where(matched, -1.0, row).argmax()] = True
    return matched
