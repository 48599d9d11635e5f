"""Which images ``--image-weights`` prefers, by hand and against the reference's figures on two data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from utils.training.image_weights import class_weights, image_weights, weights_for_epoch

CLASSES = {"bccd train": 3, "tiny-coco train": 80}


def rows(*classes: int) -> np.ndarray:
    """An image's boxes of these classes."""
    return np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in classes], np.float32).reshape(-1, 5)


def test_rare_classes_weigh_more_and_missing_ones_count_as_seen_once() -> None:
    # Counts 3, 1, 0: inverse 1/3, 1, 1; sum 7/3.
    assert class_weights([rows(0, 0, 1), rows(0)], 3) == pytest.approx([1 / 7, 3 / 7, 3 / 7])


def test_an_image_weighs_as_much_as_its_objects() -> None:
    labels = [rows(0, 0, 1), rows(), rows(1)]
    assert image_weights(labels, np.array([1.0, 10.0])).tolist() == [12, 0, 10]


def test_well_recognised_classes_weigh_less() -> None:
    labels = [rows(0), rows(1)]
    assert weights_for_epoch(labels, np.array([0.0, 0.0])) == pytest.approx([0.5, 0.5])
    assert weights_for_epoch(labels, np.array([0.5, 0.0])) == pytest.approx([0.125, 0.5])  # (1 - mAP) squared


def test_nothing_to_weigh_by_is_told_by_none() -> None:
    assert weights_for_epoch([rows(), rows()], np.zeros(2)) is None
    assert weights_for_epoch([rows(0)], np.ones(1)) is None


@pytest.mark.parametrize("name", CLASSES)
def test_weights_on_real_labels_are_those_of_the_reference(golden: Any, name: str) -> None:
    nc = CLASSES[name]
    _, labels = golden.labels(name)
    figures = golden.json("tensors")
    weights = class_weights(labels, nc)
    assert weights == pytest.approx(figures["class_weights"][name], abs=1e-9)
    even = image_weights(labels, np.ones(nc))
    assert even[:5].tolist() == figures["image_weights_first5_uniform_class_weights"][name]
    found = image_weights(labels, weights)[:5]
    assert found == pytest.approx(figures["image_weights_first5_inverse_freq"][name], rel=1e-6)
