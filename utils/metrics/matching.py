"""Matching of detections and labels: which detections are correct at each IoU threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from utils.core.boxes import box_iou

Matcher: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def match_predictions(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Mark the correct detections of one image.

    At each threshold separately, each detection in turn takes the label of its class with the highest IoU, among those
    that are free and reach the threshold. This is COCO's rule (without crowd regions), computed in float64.

    Args:
        detections: [k, 6] x1 y1 x2 y2 confidence class, the most confident first.
        labels: [n, 5] class x1 y1 x2 y2, in the same pixels.
        iouv: [t] IoU thresholds, rising.

    Returns:
        bool [k, t].
    """
    limits = iouv.double().cpu().numpy()
    correct = np.zeros((len(detections), len(limits)), dtype=bool)
    if len(detections) and len(labels):
        rows, label_rows = detections.double().cpu().numpy(), labels.double().cpu().numpy()
        overlap = box_iou(rows[:, :4], label_rows[:, 1:])  # [k, n]
        overlap[rows[:, 5:] != label_rows[:, 0]] = -1.0
        free = np.ones((len(limits), len(label_rows)), dtype=bool)
        every = np.arange(len(limits))
        for k in (overlap >= limits[0]).any(1).nonzero()[0]:
            offer = np.where(free & (overlap[k] >= limits[:, None]), overlap[k], -1.0)  # [t, n]
            chosen = offer.argmax(1)
            correct[k] = offer[every, chosen] >= 0
            free[every[correct[k]], chosen[correct[k]]] = False
    return torch.from_numpy(correct).to(detections.device)


def match_as_v61(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Mark the correct detections as v6.1 does, for equal metrics; arguments as :func:`match_predictions`.

    Pairs are made once, at the lowest threshold: a detection belongs to the label of its class with the highest IoU,
    and a label keeps the first of its detections. The others get no label, and the same pairs are compared with every
    threshold. So a detection of high confidence and low IoU takes the label from a better one, and the AP at high
    thresholds is too low.
    """
    count = len(detections)
    correct = torch.zeros(count, len(iouv), dtype=torch.bool, device=detections.device)
    if count == 0 or len(labels) == 0:
        return correct
    overlap = box_iou(labels[:, 1:], detections[:, :4])  # [n, k]
    possible = (labels[:, :1] == detections[:, 5]) & (overlap >= iouv[0])
    best, label_of = overlap.masked_fill(~possible, -1.0).max(0)  # [k] IoU and label index
    with_label = (best >= 0).nonzero().flatten()
    # The first detection of each label; `count` for labels without one.
    first = torch.full((len(labels),), count, dtype=torch.long, device=detections.device)
    first.scatter_reduce_(0, label_of[with_label], with_label, "amin")
    first = first[first < count]
    correct[first] = best[first, None] >= iouv
    return correct
