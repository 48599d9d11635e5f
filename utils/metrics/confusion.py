"""Confusion matrix."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.core.boxes import box_iou
from utils.core.nms_defaults import CONF_THRES, IOU_THRES

LOG = logging.getLogger(__name__)


def _pair(overlap: np.ndarray, iou_thres: float) -> tuple[np.ndarray, np.ndarray]:
    """Match labels and detections by their IoU [n, k]; return two index arrays [p].

    A detection belongs to the label with the highest IoU; a label keeps the one of its detections with the highest.
    """
    if overlap.size == 0:
        return np.zeros(0, int), np.zeros(0, int)
    label_of, best = overlap.argmax(0), overlap.max(0)  # [k]
    detections = (best > iou_thres).nonzero()[0]
    detections = detections[np.argsort(-best[detections], kind="stable")]
    labels, first = np.unique(label_of[detections], return_index=True)
    return labels, detections[first]


class ConfusionMatrix:
    """Counts of predicted class (row) and true class (column); the last row and column are the background.

    Boxes are matched by IoU, for all classes together. A label without a detection counts as (background, class), a
    detection without a label as (class, background).
    """

    def __init__(
        self, nc: int, conf: float = CONF_THRES, iou_thres: float = IOU_THRES, count_unmatched_images: bool = True
    ) -> None:
        """Start with zeros.

        Args:
            nc: number of classes.
            conf: ignore detections up to this confidence.
            iou_thres: IoU that a match needs at least.
            count_unmatched_images: count the detections of images without any match. False: as v6.1, which has too
                few false positives.
        """
        self.nc = nc
        self.conf = conf
        self.iou_thres = iou_thres
        self.count_unmatched_images = count_unmatched_images
        self.matrix = np.zeros((nc + 1, nc + 1), dtype=np.int64)

    def process_batch(self, detections: torch.Tensor | None, labels: torch.Tensor) -> None:
        """Add one image.

        Args:
            detections: [k, 6] x1 y1 x2 y2 confidence class; None or no rows if there are none.
            labels: [n, 5] class x1 y1 x2 y2.
        """
        kept = labels.new_zeros(0, 6) if detections is None else detections[detections[:, 4] > self.conf]
        overlap = torch.nan_to_num(box_iou(labels[:, 1:], kept[:, :4].to(labels))).cpu().numpy()
        true = labels[:, 0].cpu().numpy().astype(int)  # [n]
        predicted = kept[:, 5].cpu().numpy().astype(int)  # [k]
        label_index, detection_index = _pair(overlap, self.iou_thres)

        missed, extra = np.delete(true, label_index), np.delete(predicted, detection_index)
        np.add.at(self.matrix, (predicted[detection_index], true[label_index]), 1)
        np.add.at(self.matrix, (np.full_like(missed, self.nc), missed), 1)
        if self.count_unmatched_images or len(label_index):
            np.add.at(self.matrix, (extra, np.full_like(extra, self.nc)), 1)

    def tp_fp(self) -> tuple[np.ndarray, np.ndarray]:
        """Return true and false positives of each class, [nc] each, without the background."""
        hits = self.matrix.diagonal()
        return hits[:-1].copy(), (self.matrix.sum(1) - hits)[:-1]

    def describe_thresholds(self) -> str:
        """The two thresholds as text."""
        return f"confidence > {self.conf:g}, IoU > {self.iou_thres:g}"

    def plot(self, normalize: bool = True, save_dir: str | Path = "", names: Sequence[str] = ()) -> None:
        """Write ``confusion_matrix.png`` to a folder: shares of each column, or counts. Arguments as in v6.1."""
        shown = list(names) if len(names) == self.nc else [str(number) for number in range(self.nc)]
        plots = importlib.import_module("utils.plots.curves")  # matplotlib is only loaded for plots
        plots.plot_confusion(
            self.matrix, shown, Path(save_dir) / "confusion_matrix.png", normalize, self.describe_thresholds()
        )

    def print(self) -> None:
        """Log the rows, as in v6.1."""
        for row in self.matrix:
            LOG.info(" ".join(map(str, row)))
