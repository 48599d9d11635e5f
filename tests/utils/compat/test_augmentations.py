"""The door utils.compat.augmentations: names and calls of v6.1."""

from __future__ import annotations

import random

import numpy as np
import pytest

from utils.compat import augmentations
from utils.compat.augmentations import (
    Albumentations,
    augment_hsv,
    box_candidates,
    copy_paste,
    cutout,
    hist_equalize,
    mixup,
    random_perspective,
    replicate,
)


@pytest.fixture
def picture() -> np.ndarray:
    """Grey, with a red square from (10, 20) to (30, 40)."""
    image = np.full((80, 80, 3), 100, np.uint8)
    image[20:40, 10:30] = (0, 0, 255)
    return image


LABELS = np.array([[1.0, 10, 20, 30, 40]], np.float32)


def test_hsv_is_changed_in_place_and_follows_the_seed(picture: np.ndarray) -> None:
    first, second = picture.copy(), picture.copy()
    for image in (first, second):
        random.seed(3)
        assert augment_hsv(image, 0.5, 0.5, 0.5) is None
    assert (first == second).all() and (first != picture).any()


def test_brightness_is_spread(picture: np.ndarray) -> None:
    dim = (picture // 4).astype(np.uint8)
    for clahe in (True, False):
        spread = hist_equalize(dim, clahe=clahe, bgr=True)
        assert spread.shape == dim.shape and spread.max() > dim.max()


def test_the_smaller_half_is_copied(picture: np.ndarray) -> None:
    labels = np.array([[1, 10, 20, 30, 40], [0, 0, 0, 70, 70]], np.float32)
    image, more = replicate(picture.copy(), labels)
    kind, x1, y1, x2, y2 = more[-1].astype(int).tolist()
    assert len(more) == 3 and kind == 1 and (x2 - x1, y2 - y1) == (20, 20)
    assert (image[y1:y2, x1:x2] == picture[20:40, 10:30]).all()
    assert len(replicate(picture, np.zeros((0, 5), np.float32))[1]) == 0


def test_a_image_that_is_moved_takes_its_labels_along(picture: np.ndarray) -> None:
    image, targets = random_perspective(picture, LABELS, degrees=0, shear=0, scale=0, translate=0.1)
    ((kind, x1, y1, x2, y2),) = targets.tolist()
    middle = image[round((y1 + y2) / 2), round((x1 + x2) / 2)]
    assert kind == 1 and middle.tolist() == [0, 0, 255]
    assert random_perspective(picture, border=(-20, -20))[0].shape == (40, 40, 3)


def test_a_rotated_polygon_bounds_its_label(picture: np.ndarray) -> None:
    outline = np.array([[10, 20], [30, 20], [30, 40], [10, 40]], np.float32)
    image, targets = random_perspective(picture, LABELS, [outline], degrees=45, shear=0, scale=0, translate=0)
    red = (image[..., 2].astype(int) - image[..., 0]) > 128
    y, x = red.nonzero()
    np.testing.assert_allclose(targets[0, 1:], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.5)


def test_outlined_objects_are_pasted_mirrored(picture: np.ndarray) -> None:
    outline = np.array([[10, 20], [30, 20], [30, 40], [10, 40]], np.float32)
    image, labels, segments = copy_paste(picture, LABELS, [outline], p=1.0)
    assert labels.tolist() == [[1, 10, 20, 30, 40], [1, 50, 20, 70, 40]] and len(segments) == 2
    assert image[30, 60].tolist() == [0, 0, 255]
    assert copy_paste(picture, LABELS, [], p=1.0)[0] is picture


def test_hidden_objects_lose_their_labels(picture: np.ndarray) -> None:
    before = picture.copy()
    assert cutout(picture, LABELS, p=0.0) is LABELS and (picture == before).all()
    counts = set()
    tiny = np.array([[1.0, 10, 20, 12, 22]], np.float32)
    for seed in range(60):
        random.seed(seed)
        counts.add(len(cutout(picture, tiny, p=1.0)))
    assert counts == {0, 1} and (picture != before).any()


def test_two_images_are_blended_and_keep_all_labels(picture: np.ndarray) -> None:
    image, labels = mixup(picture, LABELS, np.full_like(picture, 200), LABELS)
    assert 110 < image[0, 0, 0] < 190 and labels.tolist() == [*LABELS.tolist(), *LABELS.tolist()]


def test_candidates_come_as_columns() -> None:
    before = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], float).T
    after = np.array([[0, 0, 10, 10], [0, 0, 1, 10]], float).T
    assert box_candidates(before, after).tolist() == [True, False]


def test_without_the_package_the_image_stays(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: float) -> None:
        raise ImportError

    monkeypatch.setattr(augmentations.effects, "Albumentations", missing)
    image, labels = Albumentations()(picture, LABELS)
    assert image is picture and labels is LABELS
