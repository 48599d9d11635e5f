"""Which detections count as correct, and at which IoU thresholds."""

from __future__ import annotations

import torch

from utils.boxes import box_iou


def match_predictions(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Mark the correct detections of one picture.

    Pairs are made once, at the lowest threshold, among boxes of one class: a detection claims the label it overlaps
    most, and of the detections that claim a label the first in the list wins, not the one that overlaps most. The same
    pairs are then held against every threshold (v6.1's rule; pairing anew at each threshold would differ slightly).

    Args:
        detections: [k, 6] x1 y1 x2 y2 confidence class, the most confident first.
        labels: [n, 5] class x1 y1 x2 y2, in the same pixels.
        iouv: [t] IoU thresholds, rising.

    Returns:
        bool [k, t].
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
