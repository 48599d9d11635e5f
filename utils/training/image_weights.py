"""Drawing images of badly recognised classes more often (``--image-weights``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_weights(labels: Sequence[np.ndarray], nc: int) -> np.ndarray:
    """[nc] inverse frequency of each class, summing to one; a class without labels counts as seen once.

    Args:
        labels: per image [n, 5+], class first.
    """
    classes = np.concatenate([rows[:, 0] for rows in labels]).astype(int) if labels else np.zeros(0, int)
    inverse = 1 / np.maximum(np.bincount(classes, minlength=nc), 1)
    return inverse / inverse.sum()


def image_weights(labels: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """[images] sum over an image's objects of their class's weight; images without objects get 0."""
    nc = len(weights)
    counts = np.stack([np.bincount(rows[:, 0].astype(int), minlength=nc) for rows in labels])  # [images, nc]
    return counts @ weights


def weights_for_epoch(labels: Sequence[np.ndarray], maps: np.ndarray) -> np.ndarray | None:
    """[images] share of each image in the next epoch: rare classes, and those far from mAP 1, count more.

    Args:
        maps: [nc] mAP of every class, 0 before the first validation.

    Returns:
        None when no image has objects: then all count the same.
    """
    weights = image_weights(labels, class_weights(labels, len(maps)) * (1 - maps) ** 2)
    return weights if weights.sum() > 0 else None
