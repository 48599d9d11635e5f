"""Effects that a hyper-parameter turns on."""

from __future__ import annotations

import logging
import random
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from utils.config.hyp import Hyp
from utils.core.image import LetterboxInfo
from utils.datasets.augment.geometry import Sample
from utils.datasets.augment.optional import AlbumentationsTransform, cutout_sample, enabled_transforms, equalize_sample
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.records import LabelRecord

INFO = LetterboxInfo((64, 64), (1.0, 1.0), (0.0, 0.0))


def dark() -> Sample:
    shades = np.arange(64, dtype=np.uint8).repeat(64).reshape(64, 64)
    return Sample(cv2.merge([shades] * 3), np.array([[0, 10, 10, 30, 30]], np.float32), [], "", INFO)


def records(folder: Path) -> list[LabelRecord]:
    path = folder / "a.png"
    cv2.imwrite(str(path), dark().image)
    return [LabelRecord(path, None, (64, 64), np.array([[0, 0.5, 0.5, 0.8, 0.8]], np.float32))]


class Darken:
    """Stands for a transform of the package, new releases of which are seeded one by one."""

    def __init__(self, p: float) -> None:
        self.p, self.seeds = p, []

    def set_random_seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        return {"image": image // 2}


class Unseeded:
    """Of an old release: it draws from the global generator."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        return {"image": np.full_like(image, random.randrange(256))}


def install(monkeypatch: pytest.MonkeyPatch, transform: type) -> None:
    module = ModuleType("albumentations")
    module.__spec__ = ModuleSpec("albumentations", None)
    for name in AlbumentationsTransform.NAMES:
        setattr(module, name, transform)
    monkeypatch.setitem(sys.modules, "albumentations", module)
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")


def test_nothing_is_on_by_default() -> None:
    assert enabled_transforms(Hyp()) == []


def test_the_package_is_not_imported_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)  # importing it would raise
    assert enabled_transforms(Hyp(cutout=0.5)) == [(0.5, cutout_sample)]


def test_a_missing_package_is_reported_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert enabled_transforms(Hyp(albumentations=0.01)) == []
    assert "pip install albumentations" in caplog.text


def test_transforms_of_the_package_are_seeded_and_get_red_first(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Darken)
    effect = AlbumentationsTransform(1.0)
    sample = Sample(np.full((4, 4, 3), (160, 80, 48), np.uint8), dark().boxes, [], "", INFO)
    result = effect(sample, np.random.default_rng(0))
    assert result.image[0, 0].tolist() == [10, 5, 3]  # four times halved
    assert all(len(transform.seeds) == 1 for transform in effect._transforms)


def test_an_old_release_leaves_the_global_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Unseeded)
    state = random.getstate()
    images = [AlbumentationsTransform(1.0)(dark(), np.random.default_rng(3)).image for _ in range(2)]
    np.testing.assert_array_equal(*images)
    assert random.getstate() == state


def test_the_package_works_at_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Darken)
    rng, effect = np.random.default_rng(0), AlbumentationsTransform(0.1)
    changed = sum((effect(dark(), rng).image != dark().image).any() for _ in range(400))
    assert 0.25 < changed / 400 < 0.45  # 1 - 0.9^4 = 0.34


def test_equalising_spreads_the_shades() -> None:
    for seed in range(4):
        image = equalize_sample(dark(), np.random.default_rng(seed)).image
        assert np.ptp(image) > 1.3 * np.ptp(dark().image)


def test_most_boxes_survive_patches_and_large_ones_always() -> None:
    large = Sample(dark().image, np.array([[0, 0, 0, 64, 64]], np.float32), [], "", INFO)
    for seed in range(20):
        result = cutout_sample(large, np.random.default_rng(seed))
        assert len(result.boxes) == 1 and (result.image != large.image).any()


@pytest.mark.parametrize("name", ["cutout", "hist_equalize", "mosaic9"])
def test_a_hyper_parameter_changes_the_items(tmp_path: Path, name: str) -> None:
    data = records(tmp_path)
    calm = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    plain = DetectionDataset(data, 64, augment=True, hyp=Hyp(**calm))[(0, 0)]
    changed = DetectionDataset(data, 64, augment=True, hyp=Hyp(**calm, **{name: 1.0}))[(0, 0)]
    assert (plain.image != changed.image).any()
