"""Items: letterbox, rectangular batches, augmentation, images of unusual kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.core.files import find_images
from utils.datasets.dataset import DetectionDataset, TrainItem, rect_batches
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.scan import scan_labels

CALM = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def marked_image(path: Path, wh: tuple[int, int] = (64, 64), box: tuple[int, int, int, int] = (8, 16, 40, 48)) -> Path:
    """Write a black image with a white rectangle and its label beside it."""
    image = np.zeros((wh[1], wh[0], 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    cv2.imwrite(str(path), image)
    numbers = (x1 + x2) / 2 / wh[0], (y1 + y2) / 2 / wh[1], (x2 - x1) / wh[0], (y2 - y1) / wh[1]
    path.with_suffix(".txt").write_text("1 " + " ".join(f"{n:.6f}" for n in numbers) + "\n")
    return path


def records_of(*paths: Path) -> list[LabelRecord]:
    return scan_labels(list(paths), 2).records


def boxes_px(item: TrainItem) -> np.ndarray:
    """Target corners in pixels of the item's image."""
    height, width = item.image.shape[1:]
    x, y, w, h = (item.targets[:, 2:].numpy() * (width, height, width, height)).T
    return np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)


def bright_box(item: TrainItem) -> np.ndarray:
    """Around the largest bright part: a mosaic may show a sliver of the same image a second time, without a box."""
    bright = (item.image[0].numpy() > 180).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
    x, y, w, h = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4].tolist()
    return np.array([x, y, x + w, y + h])


@pytest.mark.parametrize("batch_size", [16, 1])
def test_rectangular_batches_have_the_order_and_shapes_of_the_reference(
    batch_size: int, golden: Any, shared_data: Path
) -> None:
    expected = golden.json("eval")[f"rect_bs{batch_size}"]
    images = find_images([shared_data / "tiny-coco" / "images" / "val2017"])
    records = scan_labels(images, 80).records
    dataset = DetectionDataset(records, 640, rect=True, batch_size=batch_size, stride=32, pad=0.5)
    aspect = {record.image.name: record.hw[0] / record.hw[1] for record in records}
    order = [record.image.name for record in dataset.records]
    assert [aspect[name] for name in order] == [aspect[name] for name in expected["order"]]
    if int(np.__version__.split(".")[0]) >= 2:  # numpy 1 sorts images of one shape otherwise
        assert order == expected["order"]
    assert dataset.batch_shapes.tolist() == expected["batch_shapes_hw"]
    for index in (0, 20, 49):
        shape = expected["batch_shapes_hw"][expected["batch_index"][index]]
        assert list(dataset[(0, index)].image.shape[1:]) == shape


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([(50, 100), (25, 100)], [64, 96]),  # wide: 64 * 0.5 = 1 cell, plus half a cell, rounded up
        ([(100, 50), (100, 25)], [96, 64]),
        ([(50, 100), (100, 50)], [96, 96]),
    ],
)
def test_a_batch_is_as_flat_as_its_tallest_image_allows(sizes: list[tuple[int, int]], shape: list[int]) -> None:
    _, shapes = rect_batches(sizes, 2, 64, 32, 0.5)
    assert shapes.tolist() == [shape]


def test_a_validation_item_is_letterboxed_and_its_boxes_go_back(tmp_path: Path) -> None:
    dataset = DetectionDataset(records_of(marked_image(tmp_path / "a.png", (100, 50), (10, 20, 40, 44))), 64)
    item = dataset[(0, 0)]
    assert item.image.shape == (3, 64, 64)
    assert item.image.dtype == torch.uint8 and item.image.is_contiguous()
    assert item.targets.shape == (1, 6) and item.targets[0, :2].tolist() == [0, 1]
    assert item.info.original_hw == (50, 100)
    assert item.info.pad_wh == (0, 16)
    np.testing.assert_allclose(boxes_px(item)[0], bright_box(item), atol=1)
    np.testing.assert_allclose(item.info.undo(boxes_px(item))[0], (10, 20, 40, 44), atol=0.01)


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "a.png")
    item = DetectionDataset(records_of(tmp_path / "a.png"), 64)[(0, 0)]
    assert item.image[:, 5, 5].tolist() == [200, 100, 50]


def test_a_turned_photo_has_its_box_on_the_displayed_pixels(tmp_path: Path) -> None:
    stored = np.zeros((20, 40, 3), np.uint8)
    stored[4:12, 24:36] = 255
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn clockwise: (x, y) -> (height - 1 - y, x)
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100)
    (tmp_path / "a.txt").write_text("0 0.6 0.75 0.4 0.3\n")  # x 8..16 of 20, y 24..36 of 40
    item = DetectionDataset(records_of(tmp_path / "a.jpg"), 64)[(0, 0)]
    assert item.info.original_hw == (40, 20)
    np.testing.assert_allclose(boxes_px(item)[0], bright_box(item), atol=2)


def test_16_bit_grey_and_transparent_images_work(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((64, 64), 32896, np.uint16))
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64), 128, np.uint8))
    Image.new("RGBA", (64, 64), (128, 128, 128, 10)).save(tmp_path / "clear.png")
    names = ("deep.png", "grey.png", "clear.png")
    dataset = DetectionDataset(records_of(*(tmp_path / name for name in names)), 64)
    for index in range(3):
        assert (dataset[(0, index)].image == 128).all()


@pytest.mark.parametrize("hyp", [Hyp(**CALM, mosaic=0.0, flipud=0.5, degrees=10.0), Hyp(**CALM, flipud=0.5, mixup=0.0)])
def test_augmented_boxes_stay_inside_and_on_the_marker(tmp_path: Path, hyp: Hyp) -> None:
    paths = [marked_image(tmp_path / "a.png")]
    for name in "bcdefgh":
        paths.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(paths[-1]), np.zeros((64, 64, 3), np.uint8))
    dataset = DetectionDataset(records_of(*paths), 64, augment=True, hyp=hyp)
    checked = 0
    for epoch in range(40):
        item = dataset[(epoch, 0)]
        assert item.image.shape == (3, 64, 64)
        boxes = boxes_px(item)
        assert (boxes >= -1e-3).all() and (boxes <= 64).all()
        if len(boxes) == 1:
            np.testing.assert_allclose(boxes[0], bright_box(item), atol=2.5)
            checked += 1
    assert checked >= 10


def test_mixup_keeps_the_boxes_of_two_mosaics(tmp_path: Path) -> None:
    hyp = Hyp(mosaic=1.0, mixup=1.0, scale=0.0, translate=0.0)
    single = Hyp(mosaic=1.0, mixup=0.0, scale=0.0, translate=0.0)
    records = records_of(marked_image(tmp_path / "a.png"))
    mixed = DetectionDataset(records, 64, augment=True, hyp=hyp)
    plain = DetectionDataset(records, 64, augment=True, hyp=single)
    count = [sum(len(dataset[(epoch, 0)].targets) for epoch in range(10)) for dataset in (mixed, plain)]
    assert count[0] > 1.5 * count[1]


def test_an_item_depends_on_seed_epoch_and_index_only(tmp_path: Path) -> None:
    records = records_of(*(marked_image(tmp_path / f"{n}.png") for n in "abc"))
    first = DetectionDataset(records, 64, augment=True, seed=3)
    second = DetectionDataset(records, 64, augment=True, seed=3)
    second[(0, 0)]
    assert torch.equal(first[(4, 1)].image, second[(4, 1)].image)
    assert torch.equal(first[(4, 1)].targets, second[(4, 1)].targets)
    assert not torch.equal(first[(4, 1)].image, first[(5, 1)].image)


def test_images_kept_in_memory_give_the_same_items(tmp_path: Path) -> None:
    path = marked_image(tmp_path / "a.png", (100, 50))
    records = records_of(path)
    kept = DetectionDataset(records, 64, augment=True, cache_images="ram")
    read = DetectionDataset(records, 64, augment=True)
    for epoch in range(3):
        assert torch.equal(kept[(epoch, 0)].image, read[(epoch, 0)].image)
    path.unlink()
    kept[(0, 0)]


@pytest.mark.parametrize("augment", [False, True])
def test_background_images_give_no_targets(tmp_path: Path, augment: bool) -> None:
    for name in "abcd":
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("")
    dataset = DetectionDataset(records_of(*sorted(tmp_path.glob("*.png"))), 64, augment=augment, hyp=Hyp(mixup=1.0))
    assert dataset[(0, 2)].targets.shape == (0, 6)


def test_rectangular_training_has_no_mosaic(tmp_path: Path) -> None:
    records = records_of(marked_image(tmp_path / "a.png", (64, 32), (8, 8, 40, 24)))
    item = DetectionDataset(records, 64, augment=True, rect=True, batch_size=1)[(0, 0)]
    assert item.image.shape == (3, 32, 64)
    assert len(item.targets) == 1


def test_polygons_reach_the_augmentation(tmp_path: Path) -> None:
    path = marked_image(tmp_path / "a.png", box=(4, 16, 28, 48))
    path.with_suffix(".txt").write_text("1 0.0625 0.25 0.4375 0.25 0.4375 0.75 0.0625 0.75\n")
    still = Hyp(**CALM, mosaic=1.0, copy_paste=1.0, scale=0.0, translate=0.0)
    dataset = DetectionDataset(records_of(path), 64, augment=True, hyp=still)
    without = DetectionDataset(records_of(path), 64, augment=True, hyp=Hyp(**{**still.to_dict(), "copy_paste": 0.0}))
    counts = [sum(len(d[(epoch, 0)].targets) for epoch in range(10)) for d in (dataset, without)]
    assert counts[0] > counts[1]


def test_an_image_deleted_during_the_run_is_named(tmp_path: Path) -> None:
    path = marked_image(tmp_path / "a.png")
    dataset = DetectionDataset(records_of(path), 64)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.png.*removed"):
        dataset[(0, 0)]


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    records = records_of(marked_image(tmp_path / "a.png"))
    with pytest.raises(InputError, match="image size 70"):
        DetectionDataset(records, 70)
    with pytest.raises(InputError, match="'tape'"):
        DetectionDataset(records, 64, cache_images="tape")
