"""Where a model errs most: ``images.csv`` counts the errors of every image, ``worst.jpg`` shows the worst."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.core.boxes import box_iou
from utils.core.image import read_image
from utils.core.nms_defaults import CONF_THRES
from utils.core.output import write_table
from utils.datasets.loader import Batch
from utils.evaluation.results import ImageResult
from utils.plots.worst import Case, plot_worst


@dataclass(frozen=True)
class Counts:
    """Objects of one image at one confidence and IoU 0.5: found, missed, and detections that are no such object."""

    path: str
    found: int
    missed: int
    false: int

    @property
    def errors(self) -> int:
        """Misses and false positives together."""
        return self.missed + self.false


class WorstImages:
    """Counts the errors of every image and keeps the worst.

    Args:
        conf: detections must be more confident to count; that of the confusion matrix and of drawn batches.
        keep: how many images are drawn.
    """

    def __init__(self, names: Sequence[str], conf: float = CONF_THRES, keep: int = 16) -> None:
        self.names, self.conf, self.keep = names, conf, keep
        self.counts: list[Counts] = []
        self._worst: list[tuple[int, int, Counts, Case]] = []  # a heap: the least bad first

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Nothing per batch."""

    def on_image(self, result: ImageResult) -> None:
        """Count, and keep the boxes when the image is among the worst so far."""
        counted = (result.detections[:, 4] > self.conf).numpy()
        sure, right = result.detections[counted], result.correct[counted, 0]
        missed = ~_met(result.labels.numpy(), sure.numpy()[right])
        counts = Counts(result.path, int(right.sum()), int(missed.sum()), int((~right).sum()))
        self.counts.append(counts)
        entry = counts.errors, -len(self.counts)
        if counts.errors and (len(self._worst) < self.keep or entry > self._worst[0][:2]):
            case = Case(result.path, result.labels.numpy(), missed, sure.numpy(), right)
            heapq.heappush(self._worst, (*entry, counts, case))
            if len(self._worst) > self.keep:
                heapq.heappop(self._worst)

    def save(self, folder: Path) -> None:
        """Write the list, the worst first, and the page; without any error there is no page."""
        ordered = sorted(self.counts, key=lambda c: (-c.errors, c.path))
        head = ("image", "found", "missed", "false_positives")
        write_table(folder / "images.csv", [head, *((c.path, c.found, c.missed, c.false) for c in ordered)])
        cases = [case for _, _, _, case in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]
        if cases:
            plot_worst(cases, lambda path: read_image(Path(path)), self.names, folder / "worst.jpg")


def _met(labels: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """bool [n]: which labels [n, 5] belong to the correct detections [h, 6], each of which has one."""
    met = np.zeros(len(labels), dtype=bool)
    overlap = box_iou(hits[:, :4], labels[:, 1:])  # [h, n]
    overlap[hits[:, 5:] != labels[:, 0]] = -1.0
    for row in overlap:  # in the order in which they chose
        met[np.where(met, -1.0, row).argmax()] = True
    return met
