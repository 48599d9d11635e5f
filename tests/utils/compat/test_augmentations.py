"""Augmentations with the names and arguments of v6.1."""

from __future__ import annotations

import random

import numpy as np
import pytest

from utils.compat import augmentations
from utils.compat.augmentations import (
    Albumentations,
    augment_hsv,
    copy_paste,
    mixup,
    random_perspective,
)


@pytest.fixture
def image_bgr() -> np.ndarray:
    """Grey, with a red square from (10, 20) to (30, 40)."""
    image = np.full((80, 80, 3), 100, np.uint8)
    image[20:40, 10:30] = (0, 0, 255)
    return image


LABELS = np.array([[1.0, 10, 20, 30, 40]], np.float32)


def test_hsv_is_changed_in_place_and_follows_the_seed(image_bgr: np.ndarray) -> None:
    first, second = image_bgr.copy(), image_bgr.copy()
    for image in (first, second):
        random.seed(3)
        assert augment_hsv(image, 0.5, 0.5, 0.5) is None
    assert (first == second).all() and (first != image_bgr).any()


def test_an_image_that_is_moved_takes_its_labels_along(image_bgr: np.ndarray) -> None:
    image, targets = random_perspective(image_bgr, LABELS, degrees=0, shear=0, scale=0, translate=0.1)
    ((kind, x1, y1, x2, y2),) = targets.tolist()
    middle = image[round((y1 + y2) / 2), round((x1 + x2) / 2)]
    assert kind == 1 and middle.tolist() == [0, 0, 255]
    assert random_perspective(image_bgr, border=(-20, -20))[0].shape == (40, 40, 3)


def test_a_rotated_polygon_bounds_its_label(image_bgr: np.ndarray) -> None:
    outline = np.array([[10, 20], [30, 20], [30, 40], [10, 40]], np.float32)
    image, targets = random_perspective(image_bgr, LABELS, [outline], degrees=45, shear=0, scale=0, translate=0)
    red = (image[..., 2].astype(int) - image[..., 0]) > 128
    y, x = red.nonzero()
    np.testing.assert_allclose(targets[0, 1:], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.5)


def test_outlined_objects_are_pasted_mirrored(image_bgr: np.ndarray) -> None:
    outline = np.array([[10, 20], [30, 20], [30, 40], [10, 40]], np.float32)
    image, labels, segments = copy_paste(image_bgr, LABELS, [outline], p=1.0)
    assert labels.tolist() == [[1, 10, 20, 30, 40], [1, 50, 20, 70, 40]] and len(segments) == 2
    assert image[30, 60].tolist() == [0, 0, 255]
    assert copy_paste(image_bgr, LABELS, [], p=1.0)[0] is image_bgr


def test_two_images_are_blended_and_keep_all_labels(image_bgr: np.ndarray) -> None:
    image, labels = mixup(image_bgr, LABELS, np.full_like(image_bgr, 200), LABELS)
    assert 110 < image[0, 0, 0] < 190 and labels.tolist() == [*LABELS.tolist(), *LABELS.tolist()]


def test_without_the_package_the_image_stays(image_bgr: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: float) -> None:
        raise ImportError

    monkeypatch.setattr(augmentations.optional, "AlbumentationsTransform", missing)
    image, labels = Albumentations()(image_bgr, LABELS)
    assert image is image_bgr and labels is LABELS
