"""Odd boxes, files and images, on hand-made records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.datasets.checks.findings import box_findings, class_counts, file_findings, identity_findings, unused_classes
from utils.datasets.labels.records import LabelRecord


def record(*rows: tuple[float, ...], hw: tuple[int, int] = (100, 200), image: str = "a.jpg") -> LabelRecord:
    boxes = np.array(rows, np.float32).reshape(-1, 5)
    return LabelRecord(Path(image), Path(image).with_suffix(".xml"), hw, boxes)


def kinds(*rows: tuple[float, ...], imgsz: int = 200) -> list[str]:
    return [finding.kind for finding in box_findings(record(*rows), imgsz)]


def test_an_ordinary_box_is_not_mentioned() -> None:
    assert kinds((0, 0.5, 0.5, 0.2, 0.4)) == []


@pytest.mark.parametrize(
    ("width", "imgsz", "expected"),
    [
        (2.1 / 200, 200, []),
        (1.9 / 200, 200, ["tiny box"]),
        (3.9 / 200, 100, ["tiny box"]),  # 1.95 pixels once the image is halved
        (4.1 / 200, 100, []),
        (1.5 / 200, 800, ["tiny box"]),  # enlarging shows no more than there is
        (0.9 / 200, 800, ["box without pixels"]),
    ],
)
def test_tiny_boxes_are_measured_at_the_size_of_training(width: float, imgsz: int, expected: list[str]) -> None:
    assert kinds((0, 0.5, 0.5, width, 0.5), imgsz=imgsz) == expected


def test_a_box_of_the_whole_image() -> None:
    assert kinds((0, 0.5, 0.5, 1, 1)) == ["box of the whole image"]
    assert kinds((0, 0.5, 0.5, 1, 0.9)) == []


def test_one_object_labelled_twice_and_under_two_classes() -> None:
    base, near, apart = (1, 0.5, 0.5, 0.4, 0.4), (1, 0.501, 0.5, 0.4, 0.4), (1, 0.52, 0.5, 0.4, 0.4)
    assert kinds(base, near) == ["nearly the same box"]  # IoU 399 / 401
    assert kinds(base, apart) == []  # IoU 380 / 420
    assert kinds(base, (2, *base[1:])) == ["two classes for one box"]
    assert kinds(near, (0, 0.1, 0.1, 0.1, 0.1), base) == ["nearly the same box"]


def test_pairs_are_those_of_a_comparison_of_all_with_all() -> None:
    rng = np.random.default_rng(0)
    centres = rng.random((30, 4)) * 0.2 + 0.3
    jitter = centres[:, None] + rng.normal(0, 0.002, (30, 4, 4))
    rows = np.concatenate([np.zeros((120, 1)), jitter.reshape(-1, 4)], 1)
    boxes = rows.astype(np.float32).astype(np.float64)
    low, high = boxes[:, 1:3] - boxes[:, 3:] / 2, boxes[:, 1:3] + boxes[:, 3:] / 2
    shared = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(0).prod(2)
    areas = (high - low).prod(1)
    iou = shared / (areas[:, None] + areas - shared)
    expected = int(np.triu(iou >= 0.95, 1).sum())
    assert expected > 50
    assert len(kinds(*map(tuple, rows))) == expected


def test_the_line_of_a_box_is_that_of_its_row(tmp_path: Path) -> None:
    label = tmp_path / "a.txt"
    label.write_text("0 0.5 0.5 0.2 0.2\n\n0 9 9 9 9\n0 0.5 0.5 1 1\n")
    boxes = np.array([[0, 0.5, 0.5, 0.2, 0.2], [0, 0.5, 0.5, 1, 1]], np.float32)
    (finding,) = box_findings(LabelRecord(tmp_path / "a.jpg", label, (64, 64), boxes), 64)
    assert (finding.file, finding.line, finding.value) == (str(label), 4, "0 0.5 0.5 1 1")


def test_classes_without_boxes_are_named() -> None:
    counts = class_counts([record((0, 0.5, 0.5, 0.1, 0.1), (2, 0.5, 0.5, 0.1, 0.1)), record()], 4)
    assert counts.tolist() == [1, 0, 1, 0]
    found = [finding.value for finding in unused_classes(counts, ["ant", "bee", "cat", "dog"], Path("d.yaml"))]
    assert found == ["class 1 (bee)", "class 3 (dog)"]


def test_label_files_without_an_image_and_of_two_images(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a.jpg", "a.png", "b.jpg", "broken.jpg"):
        (tmp_path / "images" / name).touch()
    for name in ("a", "b", "broken", "left", "classes"):
        text = "ant\nbee\n" if name == "classes" else "0 0.5 0.5 0.1 0.1\n"
        (tmp_path / "labels" / f"{name}.txt").write_text(text)
    empty = np.zeros((0, 5), np.float32)
    records = [
        LabelRecord(tmp_path / "images" / name, tmp_path / "labels" / f"{name[0]}.txt", (64, 64), empty)
        for name in ("a.jpg", "a.png", "b.jpg")
    ]
    records.append(LabelRecord(tmp_path / "c.jpg", None, (64, 64), empty))
    found = [(finding.kind, Path(finding.file).name) for finding in file_findings(records)]
    assert found == [
        ("no label file", "c.jpg"),
        ("one label file for several images", "a.txt"),
        ("label file without image", "left.txt"),
    ]


def identical(splits: dict[str, list[LabelRecord]], *groups: list[str]) -> list[tuple[str, str, str]]:
    found = identity_findings(splits, [[Path(name) for name in group] for group in groups])
    return [(split, finding.kind, Path(finding.file).stem) for split, finding in found]


LEAK, SAME, OTHER = (
    "image of the training set in another split",
    "identical images",
    "identical images, different labels",
)


def test_an_image_in_train_and_val_is_a_leak_named_where_it_is_scored() -> None:
    row = (0, 0.5, 0.5, 0.1, 0.1)
    splits = {"train": [record(row, image="z.jpg")], "val": [record(row, image="a.jpg"), record(row, image="b.jpg")]}
    assert identical(splits, ["a.jpg", "z.jpg"]) == [("val", LEAK, "a")]
    assert identical(splits) == []


def test_one_path_in_two_splits_is_a_leak_too() -> None:
    splits = {"train": [record(image="a.jpg"), record(image="b.jpg")], "val": [record(image="b.jpg")]}
    assert identical(splits) == [("val", LEAK, "b")]
    assert identical({"val": [record(image="b.jpg")], "test": [record(image="b.jpg")]}) == [("test", SAME, "b")]


def test_repeated_images_of_one_split_and_contradicting_labels() -> None:
    row, turned = (0, 0.5, 0.5, 0.1, 0.1), (1, 0.5, 0.5, 0.1, 0.1)
    records = [record(row, turned, image="a.jpg"), record(turned, row, image="b.jpg"), record(row, image="c.jpg")]
    assert identical({"train": records}, ["a.jpg", "b.jpg", "c.jpg"]) == [
        ("train", SAME, "b"),
        ("train", SAME, "c"),
        ("train", OTHER, "c"),
    ]


def test_a_line_repeated_in_a_list_is_not_a_finding() -> None:
    same = record(image="a.jpg")
    assert identical({"train": [same, same]}) == []
