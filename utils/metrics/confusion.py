"""Which classes are taken for which."""

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
    """Labels and detections that belong together, two index arrays [p], from their IoU [n, k].

    A detection claims the label it overlaps most; a label takes the claimant that overlaps it most.
    """
    if overlap.size == 0:
        return np.zeros(0, int), np.zeros(0, int)
    claimed, best = overlap.argmax(0), overlap.max(0)  # [k]
    detections = (best > iou_thres).nonzero()[0]
    detections = detections[np.argsort(-best[detections], kind="stable")]
    labels, first = np.unique(claimed[detections], return_index=True)
    return labels, detections[first]


class ConfusionMatrix:
    """Counts of predicted class (row) against true class (column); the last row and column are the background.

    Boxes are paired by overlap alone, whatever their classes. A label without a detection counts as (background,
    class), a detection without a label as (class, background).
    """

    def __init__(
        self, nc: int, conf: float = CONF_THRES, iou_thres: float = IOU_THRES, count_unmatched_images: bool = True
    ) -> None:
        """Start with zeros.

        Args:
            nc: number of classes.
            conf: detections must be more confident to count.
            iou_thres: a pair must overlap more.
            count_unmatched_images: count the detections of images in which none met a label. v6.1 left them out,
                so its false positives were too few; False repeats its figures.
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
        found = labels.new_zeros(0, 6) if detections is None else detections[detections[:, 4] > self.conf]
        overlap = torch.nan_to_num(box_iou(labels[:, 1:], found[:, :4].to(labels))).cpu().numpy()
        true = labels[:, 0].cpu().numpy().astype(int)  # [n]
        predicted = found[:, 5].cpu().numpy().astype(int)  # [k]
        label_index, detection_index = _pair(overlap, self.iou_thres)

        missed, extra = np.delete(true, label_index), np.delete(predicted, detection_index)
        np.add.at(self.matrix, (predicted[detection_index], true[label_index]), 1)
        np.add.at(self.matrix, (np.full_like(missed, self.nc), missed), 1)
        if self.count_unmatched_images or len(label_index):
            np.add.at(self.matrix, (extra, np.full_like(extra, self.nc)), 1)

    def tp_fp(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives of each class, [nc] each, background left out."""
        hits = self.matrix.diagonal()
        return hits[:-1].copy(), (self.matrix.sum(1) - hits)[:-1]

    def plot(self, normalize: bool = True, save_dir: str | Path = "", names: Sequence[str] = ()) -> None:
        """Write ``confusion_matrix.png`` into a folder: shares of each column, or counts. v6.1's call."""
        shown = list(names) if len(names) == self.nc else [str(number) for number in range(self.nc)]
        plots = importlib.import_module("utils.plots.curves")  # matplotlib is for those who want images
        plots.plot_confusion(self.matrix, shown, Path(save_dir) / "confusion_matrix.png", normalize)

    def print(self) -> None:
        """Log the rows. v6.1's call."""
        for row in self.matrix:
            LOG.info(" ".join(map(str, row)))
