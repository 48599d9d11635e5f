"""Sampling images of classes with a low mAP more often (``--image-weights``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_weights(labels: Sequence[np.ndarray], nc: int) -> np.ndarray:
    """Return [nc] the inverse frequency of each class, with a sum of one; a class without labels counts as one.

    Args:
        labels: per image [n, 5+], class first.
    """
    classes = np.concatenate([rows[:, 0] for rows in labels]).astype(int) if labels else np.zeros(0, int)
    inverse = 1 / np.maximum(np.bincount(classes, minlength=nc), 1)
    return inverse / inverse.sum()


def image_weights(labels: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return [images] the sum of the class weights of an image's objects; 0 for an image without objects."""
    nc = len(weights)
    counts = np.stack([np.bincount(rows[:, 0].astype(int), minlength=nc) for rows in labels])  # [images, nc]
    return counts @ weights


def weights_for_epoch(labels: Sequence[np.ndarray], class_map: np.ndarray) -> np.ndarray | None:
    """Return [images] the weight of each image in the next epoch: rare classes and those of low mAP weigh more.

    Args:
        labels: per image [n, 5+], class first.
        class_map: [nc] mAP of every class, 0 before the first validation.

    Returns:
        None when no image has objects: then all weigh the same.
    """
    weights = image_weights(labels, class_weights(labels, len(class_map)) * (1 - class_map) ** 2)
    return weights if weights.sum() > 0 else None
