"""Images for the network: reduced decoding, and keeping them in memory or on disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.core.image import image_hw, read_image
from utils.datasets.dataset import DetectionDataset
from utils.datasets.image_store import ImageStore
from utils.datasets.labels.records import LabelRecord


def photo(path: Path, hw: tuple[int, int], orientation: int = 1) -> LabelRecord:
    """An image with soft colours, and one box."""
    rng = np.random.default_rng(hw[0] + hw[1])
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    exif = Image.Exif()
    if orientation > 1:
        exif[274] = orientation
    Image.fromarray(cv2.resize(small, hw[::-1], interpolation=cv2.INTER_CUBIC)).save(path, exif=exif, quality=95)
    boxes = np.array([[0, 0.5, 0.5, 0.4, 0.4]], np.float32)
    return LabelRecord(path, None, image_hw(path), boxes)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(("hw", "size"), [((128, 256), (32, 64)), ((130, 257), (33, 64)), ((90, 60), (64, 43))])
def test_training_images_have_the_long_side_asked_for(
    tmp_path: Path, suffix: str, hw: tuple[int, int], size: tuple[int, int]
) -> None:
    record = photo(tmp_path / f"a.{suffix}", hw)
    image, original_hw = ImageStore([record], 64, training=True).read(0)
    assert (image.shape[:2], original_hw) == (size, hw)
    smooth = cv2.resize(read_image(record.image), size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - smooth).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_turned_like_the_whole_one(tmp_path: Path, orientation: int) -> None:
    record = photo(tmp_path / "a.jpg", (512, 768), orientation)
    image, original_hw = ImageStore([record], 192, training=True).read(0)
    whole = read_image(record.image)
    assert original_hw == whole.shape[:2]
    expected = cv2.resize(whole, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 4


def test_what_is_no_jpeg_is_reduced_without_averaging_in_training(tmp_path: Path) -> None:
    record = photo(tmp_path / "a.png", (128, 200))
    expected = cv2.resize(read_image(record.image), (64, 41), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(ImageStore([record], 64, training=True).read(0)[0], expected)


@pytest.mark.parametrize("cache", [None, "ram", "disk"])
def test_a_small_image_is_kept_small_until_it_is_asked_for(tmp_path: Path, cache: str | None) -> None:
    record = photo(tmp_path / "a.png", (30, 40))
    images = ImageStore([record], 64, training=True, cache=cache)
    np.testing.assert_array_equal(images.read(0, enlarge=False)[0], read_image(record.image))
    assert images.read(0)[0].shape == (48, 64, 3)


def test_validation_averages_the_image_decoded_in_full(tmp_path: Path) -> None:
    record = photo(tmp_path / "a.jpg", (128, 256))
    image, _ = ImageStore([record], 64, training=False).read(0)
    expected = cv2.resize(read_image(record.image), (64, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(image, expected)


def items(records: list[LabelRecord], cache: str | None, folder: Path | None = None) -> list[torch.Tensor]:
    dataset = DetectionDataset(records, 64, augment=True, hyp=Hyp(mixup=0.3), cache_images=cache, cache_dir=folder)
    found = [dataset[(epoch, index)] for epoch in range(3) for index in range(len(records))]
    return [part for item in found for part in (item.image, item.targets)]


def test_items_are_the_same_from_files_memory_and_disk(tmp_path: Path) -> None:
    sizes = ((64, 64), (48, 64), (128, 97), (50, 40))
    records = [photo(tmp_path / f"{i}.jpg", hw) for i, hw in enumerate(sizes)]
    expected = items(records, None)
    for cache, folder in (("ram", None), ("disk", None), ("disk", tmp_path / "kept"), ("disk", tmp_path / "kept")):
        for ours, theirs in zip(items(records, cache, folder), expected, strict=True):
            assert torch.equal(ours, theirs)
    assert len(list((tmp_path / "kept").glob("*.npy"))) == len(list(tmp_path.glob(".*.npy"))) == 4


def test_a_changed_image_is_not_taken_from_the_disk(tmp_path: Path) -> None:
    record = photo(tmp_path / "a.png", (64, 64))
    before, _ = ImageStore([record], 64, training=True, cache="disk").read(0)
    cv2.imwrite(str(record.image), np.zeros((64, 64, 3), np.uint8))
    os.utime(record.image, ns=(0, 12345))
    kept = ImageStore([record], 64, training=True, cache="disk")
    assert before.any() and not kept.read(0)[0].any()
    assert len(list(tmp_path.glob(".a.png.64.*.npy"))) == 2


def test_a_damaged_file_on_disk_is_written_anew(tmp_path: Path) -> None:
    record = photo(tmp_path / "a.png", (64, 64))
    expected, _ = ImageStore([record], 64, training=True, cache="disk").read(0)
    (file,) = tmp_path.glob(".a.png.*.npy")
    expected = expected.copy()
    file.write_bytes(file.read_bytes()[:500])
    np.testing.assert_array_equal(ImageStore([record], 64, training=True, cache="disk").read(0)[0], expected)
    assert file.stat().st_size > 64 * 64 * 3


def test_a_folder_that_takes_no_files_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = photo(tmp_path / "a.png", (64, 64))
    (tmp_path / "taken").write_text("")  # a file where the folder should be: no one may write there, root included
    with caplog.at_level(logging.WARNING):
        images = ImageStore([record, record], 64, training=True, cache="disk", folder=tmp_path / "taken")
    assert "2 of 2 images could not be written" in caplog.text and len(caplog.records) == 1
    assert images.read(0)[0].shape == (64, 64, 3)


def test_an_unknown_cache_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'dick' is not known; did you mean 'disk'"):
        ImageStore([], 64, training=True, cache="dick")
