"""Which detections count as correct, and at which IoU thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from utils.core.boxes import box_iou

Matcher: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def match_predictions(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Mark the correct detections of one image.

    At each threshold by itself, the detections choose in turn: each takes the label of its class that overlaps it most
    among those that are still free and overlap at least as much as the threshold. This is COCO's rule (without crowd
    regions), computed in float64.

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
        found, known = detections.double().cpu().numpy(), labels.double().cpu().numpy()
        overlap = box_iou(found[:, :4], known[:, 1:])  # [k, n]
        overlap[found[:, 5:] != known[:, 0]] = -1.0
        free = np.ones((len(limits), len(known)), dtype=bool)
        every = np.arange(len(limits))
        for k in (overlap >= limits[0]).any(1).nonzero()[0]:
            offer = np.where(free & (overlap[k] >= limits[:, None]), overlap[k], -1.0)  # [t, n]
            chosen = offer.argmax(1)
            correct[k] = offer[every, chosen] >= 0
            free[every[correct[k]], chosen[correct[k]]] = False
    return torch.from_numpy(correct).to(detections.device)


def match_as_v61(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Mark the correct detections as v6.1 does, to repeat its figures; arguments as :func:`match_predictions`.

    Pairs are made once, at the lowest threshold: a detection claims the label of its class that it overlaps most, and
    of the detections that claim a label the first in the list wins. The others never fall back on another label, and
    the same pairs are then held against every threshold. So a detection of high confidence and poor overlap spoils
    the label for a better one, and the AP at high thresholds comes out too low.
    """
    count = len(detections)
    correct = torch.zeros(count, len(iouv), dtype=torch.bool, device=detections.device)
    if count == 0 or len(labels) == 0:
        return correct
    overlap = box_iou(labels[:, 1:], detections[:, :4])  # [n, k]
    possible = (labels[:, :1] == detections[:, 5]) & (overlap >= iouv[0])
    best, claimed = overlap.masked_fill(~possible, -1.0).max(0)  # [k] IoU and label index
    claimants = (best >= 0).nonzero().flatten()
    # The smallest detection index that claims each label; `count` where none does.
    winner = torch.full((len(labels),), count, dtype=torch.long, device=detections.device)
    winner.scatter_reduce_(0, claimed[claimants], claimants, "amin")
    winner = winner[winner < count]
    correct[winner] = best[winner, None] >= iouv
    return correct
