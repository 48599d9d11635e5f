"""Splits of every kind of entry, alone and mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.datasets.labels.records import LabelSet
from utils.datasets.labels.splits import load_labels, open_split

VOC_OBJECT = """<annotation><size><width>100</width><height>50</height></size>
<object><name>cat</name><bndbox><xmin>10</xmin><ymin>5</ymin><xmax>30</xmax><ymax>15</ymax></bndbox></object>
</annotation>"""


def make_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((50, 100, 3), 120, np.uint8))[1].tobytes())


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three sets of one image with the same box: ``yolo``, ``coco`` and ``voc``."""
    make_image(tmp_path / "yolo/images/y.png")
    text(tmp_path / "yolo/labels/y.txt", "1 0.2 0.2 0.2 0.2\n")
    make_image(tmp_path / "coco/images/c.png")
    whole = {
        "images": [{"id": 1, "file_name": "c.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [10, 5, 20, 10]}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    text(tmp_path / "coco/annotations/all.json", json.dumps(whole))
    make_image(tmp_path / "voc/JPEGImages/v.png")
    text(tmp_path / "voc/Annotations/v.xml", VOC_OBJECT)
    text(tmp_path / "voc/ImageSets/Main/train.txt", "v\n")
    return tmp_path


@pytest.mark.parametrize("points", [2, 4])  # of 3 numbers: 2 make an odd row, 4 one that could be a polygon
def test_of_pose_labels_the_boxes_are_used(root: Path, points: int) -> None:
    row = "1 0.2 0.2 0.2 0.2"
    text(root / "yolo/labels/y.txt", f"{row}{' 0.5 0.5 2' * points}\n0 0.5 0.5 0.1 0.1\n")
    labels = load(root, f"train: yolo/images\nnames: [a, b]\nkpt_shape: [{points}, 3]\n")
    assert labels.records[0].boxes.round(4).tolist() == pytest.approx(
        np.array([[1, 0.2, 0.2, 0.2, 0.2], [0, 0.5, 0.5, 0.1, 0.1]])
    )
    assert labels.records[0].segments == ()
    assert labels.report.counts == {"key points": 1}


def load(root: Path, yaml_text: str, **options: bool) -> LabelSet:
    text(root / "data.yaml", yaml_text)
    return load_labels(DatasetSpec.load(root / "data.yaml", options.get("single_cls", False)), "train", **options)


@pytest.mark.parametrize(
    "entry",
    [
        "yolo/images",
        "yolo/images/y.png",
        "coco/annotations/all.json",
        "voc/Annotations",
        "voc/Annotations/v.xml",
        "voc/JPEGImages",
        "voc/JPEGImages/v.png",
        "voc/ImageSets/Main/train.txt",
    ],
)
def test_every_kind_of_entry_gives_the_same_labels(root: Path, entry: str) -> None:
    for _ in range(2):  # the second time from the cache
        (record,) = load(root, f"train: {entry}\nnames: [dog, cat]\n", require_labels=True).records
        np.testing.assert_allclose(record.boxes, [[1, 0.2, 0.2, 0.2, 0.2]], atol=1e-6)


def test_entries_of_all_kinds_make_one_set_in_the_order_of_the_paths(root: Path) -> None:
    entries = "[voc/Annotations, yolo/images, coco/annotations/all.json]"
    labels = load(root, f"train: {entries}\nnames: [dog, cat]\n", require_labels=True)
    assert [record.image.name for record in labels.records] == ["c.png", "v.png", "y.png"]
    boxes = np.concatenate([record.boxes for record in labels.records])
    np.testing.assert_allclose(boxes, [[1, 0.2, 0.2, 0.2, 0.2]] * 3, atol=1e-6)
    assert labels.report.labelled == 3


def test_a_mixed_set_without_names_has_those_of_the_json(root: Path) -> None:
    labels = load(root, "train: [voc/Annotations, coco/annotations/all.json]\n")
    assert [record.boxes[0, 0] for record in labels.records] == [1, 1]


def test_single_cls_reaches_every_kind(root: Path) -> None:
    labels = load(root, "train: [voc/Annotations, yolo/images, coco/annotations/all.json]\n", single_cls=True)
    assert [record.boxes[0, 0] for record in labels.records] == [0, 0, 0]


def test_label_files_come_before_annotations_of_the_same_images(root: Path) -> None:
    text(root / "yolo/Annotations/y.xml", VOC_OBJECT)
    assert load(root, "train: yolo/images\nnames: [a, b]\n").records[0].label == root / "yolo/labels/y.txt"


def test_images_with_xml_files_beside_them_are_voc(root: Path) -> None:
    make_image(root / "beside/x.png")
    make_image(root / "beside/background.png")
    text(root / "beside/x.xml", VOC_OBJECT)
    labels = load(root, "train: beside\nnames: [dog, cat]\n")
    assert [(r.image.name, len(r.boxes)) for r in labels.records] == [("background.png", 0), ("x.png", 1)]


def test_a_folder_that_images_names_is_where_images_are(root: Path) -> None:
    (root / "coco/images").rename(root / "pixels")
    with pytest.raises(FileNotFoundError, match="images:"):
        load(root, "train: coco/annotations/all.json\n")
    assert len(load(root, "train: coco/annotations/all.json\nimages: pixels\n").records) == 1
    assert len(load(root, "train: coco/annotations/all.json\nimages: {train: pixels}\n").records) == 1


def test_caches_of_annotations_lie_beside_them_or_where_asked(root: Path, tmp_path: Path) -> None:
    text(root / "data.yaml", "train: [voc/Annotations, coco/annotations/all.json]\nnames: [dog, cat]\n")
    spec = DatasetSpec.load(root / "data.yaml")
    load_labels(spec, "train", cache_dir=tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere").iterdir())) == 3
    assert not [*root.glob("voc/**/*.cache"), *root.glob("coco/**/*.cache")]
    load_labels(spec, "train")
    assert (root / "voc/Annotations.cache").is_file()
    assert (root / "coco/annotations/all.json.cache").is_file()


def test_an_edited_annotation_is_read_again(root: Path) -> None:
    yaml_text = "train: voc/Annotations\nnames: [dog, cat]\n"
    assert load(root, yaml_text).records[0].boxes[0, 0] == 1
    text(root / "voc/Annotations/v.xml", VOC_OBJECT.replace("cat", "dog"))
    assert load(root, yaml_text).records[0].boxes[0, 0] == 0


def test_a_split_without_labels_is_refused_when_labels_are_required(root: Path) -> None:
    (root / "voc/Annotations/v.xml").rename(root / "voc/Annotations/other.xml")
    make_image(root / "plain/images/p.png")
    with pytest.raises(InputError, match="train labels: no labels found"):
        load(root, "train: [plain, voc/ImageSets/Main/train.txt]\nnames: [a]\n", require_labels=True)


def test_a_split_of_empty_label_files_is_background_and_no_error(root: Path) -> None:
    text(root / "voc/Annotations/v.xml", "<annotation/>")
    make_image(root / "plain/images/p.png")
    labels = load(root, "train: [plain, voc/Annotations]\nnames: [a]\n", require_labels=True)
    assert (labels.report.labelled, labels.report.empty, labels.report.missing) == (0, 1, 1)


def test_an_empty_folder_beside_a_full_one_is_no_error(root: Path) -> None:
    (root / "nothing").mkdir()
    assert len(load(root, "train: [yolo/images, nothing]\nnames: [a, b]\n").records) == 1
    with pytest.raises(FileNotFoundError, match="no images in"):
        load(root, "train: nothing\nnames: [a]\n")


def test_one_part_holds_all_entries_with_label_files(root: Path) -> None:
    make_image(root / "more/images/m.png")
    text(root / "data.yaml", "train: [yolo/images, voc/Annotations, more/images]\nnames: [dog, cat]\n")
    parts = open_split(DatasetSpec.load(root / "data.yaml"), "train")
    assert [len(part.images) for part in parts] == [2, 1]


@pytest.mark.parametrize("entry", ["coco/annotations/all.json", "voc/Annotations"])
def test_broken_annotations_give_one_line(root: Path, entry: str, break_file: Callable[[Path], None]) -> None:
    break_file(root / "coco/annotations/all.json")
    break_file(root / "voc/Annotations/v.xml")
    with pytest.raises(InputError) as caught:
        load(root, f"train: {entry}\nnames: [dog, cat]\n")
    assert "\n" not in str(caught.value)
    assert ".json:1" in str(caught.value) or "v.xml" in str(caught.value)


@pytest.fixture
def break_file() -> Callable[[Path], None]:
    """Cuts a file in half."""

    def cut(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])

    return cut
