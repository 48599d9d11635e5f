"""VOC annotations as labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.core.xml_file import read_xml
from utils.datasets.dataset import DetectionDataset
from utils.datasets.formats.annotations import DIFFICULT, NOTE
from utils.datasets.formats.voc_layout import annotation_of, images_of_folder, images_of_list, read_ids
from utils.datasets.formats.voc_xml import read_voc
from utils.datasets.labels.records import LabelSet
from utils.datasets.labels.splits import load_labels

SIZE = "<size><width>100</width><height>50</height><depth>3</depth></size>"


def make_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((50, 100, 3), 120, np.uint8))[1].tobytes())
    return path


def item(name: str, *corners: Any, extra: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object>\n<name>{name}</name>{extra}<bndbox>{box}</bndbox>\n</object>\n"


def write(file: Path, *objects: str, size: str = SIZE, head: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{head}<annotation>\n{size}\n{''.join(objects)}</annotation>\n", encoding="utf-8")
    return file


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LabelSet]:
    """``load(objects, size=..., yaml=...)``: the labels of a set of one image, ``a``, with these objects."""

    def run(*objects: str, yaml: str = "names: [cat, dog]\n", size: str = SIZE, **options: Any) -> LabelSet:
        make_image(tmp_path / "JPEGImages/a.png")
        write(tmp_path / "Annotations/a.xml", *objects, size=size)
        (tmp_path / "data.yaml").write_text(f"val: Annotations\n{yaml}", encoding="utf-8")
        spec = DatasetSpec.load(tmp_path / "data.yaml", options.get("single_cls", False))
        return load_labels(spec, "val", **options)

    return run


# Objects --------------------------------------------------------------------------------------------------------------


def test_corners_become_fractions_as_they_are(load: Callable[..., LabelSet]) -> None:
    (record,) = load(item("dog", 10, 5, 30, 15)).records
    np.testing.assert_allclose(record.boxes, [[1, 0.2, 0.2, 0.2, 0.2]], atol=1e-7)
    assert record.hw == (50, 100)
    assert record.label is not None
    assert record.label.name == "a.xml"


def test_the_number_of_a_class_is_its_place_in_names(load: Callable[..., LabelSet]) -> None:
    labels = load(item("dog", 1, 1, 9, 9), item("cat", 2, 2, 9, 9), yaml="names: [dog, cat]\n")
    assert labels.records[0].boxes[:, 0].tolist() == [0, 1]


def test_broken_coordinates_are_fine(load: Callable[..., LabelSet]) -> None:
    (record,) = load(item("cat", 10.5, " 5 ", 30.5, "1.5e1")).records
    np.testing.assert_allclose(record.boxes, [[0, 0.205, 0.2, 0.2, 0.2]], atol=1e-7)


def test_a_part_of_an_object_is_no_object(load: Callable[..., LabelSet]) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    (record,) = load(item("cat", 10, 5, 30, 15, extra=part)).records
    np.testing.assert_allclose(record.boxes, [[0, 0.2, 0.2, 0.2, 0.2]], atol=1e-7)


def test_names_that_are_no_class_stop_the_run_with_file_line_and_nearest_name(load: Callable[..., LabelSet]) -> None:
    objects = item("cat", 1, 1, 9, 9), item("dgo", 2, 2, 9, 9), item("cow", 2, 2, 9, 9), item("cow", 3, 3, 9, 9)
    with pytest.raises(InputError) as caught:
        load(*objects)
    text = str(caught.value)
    assert "a.xml:6: 'dgo'; did you mean 'dog'? (1 in all)" in text
    assert "a.xml:9: 'cow' (2 in all)" in text
    assert "its names: are cat, dog" in text


def test_without_strictness_names_that_are_no_class_are_only_reported(load: Callable[..., LabelSet]) -> None:
    labels = load(item("cat", 1, 1, 9, 9), item("dgo", 2, 2, 9, 9), strict=False)
    assert len(labels.records[0].boxes) == 1
    (finding,) = labels.report.findings
    assert "a.xml:6: dgo 2 2 9 9: 'dgo' is not among the names" in str(finding)


def test_single_cls_makes_everything_class_0(load: Callable[..., LabelSet]) -> None:
    labels = load(item("cow", 1, 1, 9, 9), item("dog", 2, 2, 9, 9), single_cls=True)
    assert labels.records[0].boxes[:, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("line", "kept", "dropped"), [("", 2, 0), ("difficult: keep", 2, 0), ("difficult: drop", 1, 1)]
)
def test_difficult_objects_are_used_unless_the_yaml_says_drop(
    load: Callable[..., LabelSet], line: str, kept: int, dropped: int
) -> None:
    objects = item("cat", 1, 1, 9, 9, extra="<difficult>1</difficult>"), item("cat", 2, 2, 9, 9)
    labels = load(*objects, yaml=f"names: [cat]\n{line}\n")
    assert len(labels.records[0].boxes) == kept
    assert labels.report.counts[DIFFICULT] == dropped


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (item("cat", 9, 1, 9, 5), "cat 9 1 9 5: width and height must be above 0"),
        (item("cat", 30, 5, 10, 15), "cat 30 5 10 15: width and height must be above 0"),
        (item("cat", 300, 5, 310, 15), "lies outside the 100x50 pixels"),
        (item("cat", -30, -5, -10, 15), "lies outside the 100x50 pixels"),
        (item("cat", 1, 1, 9), "cat: no <ymax>"),
        (item("cat", 1, 1, "wide", 9), "<xmax> 'wide' is not a number"),
        (item("cat", 1, 1, "nan", 9), "<xmax> is not finite"),
        (item("", 1, 1, 9, 9), "an object without <name>"),
        ("<object>\n<name>cat</name></object>\n", "no <bndbox>"),
    ],
)
def test_an_object_that_cannot_be_used_is_dropped_with_file_and_line(
    load: Callable[..., LabelSet], wrong: str, reason: str
) -> None:
    labels = load(item("dog", 1, 1, 9, 9), wrong)
    assert labels.records[0].boxes[:, 0].tolist() == [1]
    (message,) = labels.report.messages
    assert "Annotations/a.xml:6: " in message
    assert reason in message


def test_a_box_is_clipped_to_the_image(load: Callable[..., LabelSet]) -> None:
    labels = load(item("cat", -20, -5, 20, 10))
    np.testing.assert_allclose(labels.records[0].boxes, [[0, 0.1, 0.1, 0.2, 0.2]], atol=1e-7)
    assert labels.report.clipped_rows == 1


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["", "<size/>", SIZE.replace("100", "0"), SIZE.replace("100", "?")])
def test_without_a_size_the_pixels_are_those_of_the_image_and_this_is_said(
    load: Callable[..., LabelSet], size: str
) -> None:
    labels = load(item("cat", 10, 5, 30, 15), size=size)
    np.testing.assert_allclose(labels.records[0].boxes, [[0, 0.2, 0.2, 0.2, 0.2]], atol=1e-7)
    (note,) = labels.report.findings
    assert note.kind == NOTE
    assert "a.xml: states no size of the image; its 100x50 pixels are used" in str(note)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<object>", r":2: not valid xml: no element found"),
        ("<annotation>\n<object></annotation>", r":2: not valid xml: mismatched tag"),
        ("", r":1: not valid xml: no element found"),
        ("\n<svg/>", r":2: the outermost element is <svg>, expected <annotation>"),
        ("<?xml version='1.0' encoding='punycode'?><annotation/>", "encoding 'punycode' is not known"),
        ("<?xml version='1.0' encoding='klingon'?><annotation/>", "encoding 'klingon' is not known"),
        ("<!DOCTYPE annotation>\n<annotation/>", ":1: has a DOCTYPE or ENTITY, which is refused"),
        (
            '\n<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]>\n<annotation><path>&c;</path></annotation>',
            ":2: has a DOCTYPE or ENTITY, which is refused",
        ),
        ('<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>\n<annotation>&f;</annotation>', ":1: has a DOCTYPE"),
        ("<annotation>&c;</annotation>", ":1: not valid xml: undefined entity"),
    ],
)
def test_a_file_that_is_no_annotation_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.xml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"a\.xml:? ?{message}") as caught:
        read_voc(file)
    assert "\n" not in str(caught.value)


def test_bytes_in_another_encoding_than_declared_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_bytes("<annotation><filename>中文</filename></annotation>".encode("gbk"))
    with pytest.raises(InputError, match="byte 22 is not utf-8"):
        read_voc(file)


@pytest.mark.parametrize("encoding", ["gb2312", "utf-8", "utf-16", "utf-8-sig", "latin-1"])
def test_the_declared_encoding_is_understood(tmp_path: Path, encoding: str) -> None:
    name = "é.jpg" if encoding == "latin-1" else "图片.jpg"
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    file = tmp_path / "a.xml"
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<annotation><filename>{name}</filename></annotation>'
    file.write_bytes(text.encode(encoding))
    assert read_voc(file).filename == name


def test_every_element_knows_its_line_and_text(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_text("<a>\n <b> x&amp;y\n</b>\n<c/></a>")
    root = read_xml(file)
    assert (root.line, [(child.tag, child.line) for child in root.children]) == (1, [("b", 2), ("c", 4)])
    assert root.value("b") == "x&y"
    assert root.value("d") is None


def test_an_image_with_a_broken_file_is_left_out_and_not_taken_for_background(tmp_path: Path) -> None:
    for name in "ab":
        make_image(tmp_path / f"JPEGImages/{name}.png")
    write(tmp_path / "Annotations/a.xml", item("cat", 1, 1, 9, 9))
    (tmp_path / "Annotations/b.xml").write_text("<annotation>\n<obj", encoding="utf-8")
    (tmp_path / "data.yaml").write_text("val: Annotations\nnames: [cat]\n", encoding="utf-8")
    labels = load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "val")
    assert [record.image.name for record in labels.records] == ["a.png"]
    (message,) = labels.report.messages
    assert "Annotations/b.xml: labels cannot be read (line 2: not valid xml: unclosed token" in message


# Where things are -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "xml", "entry"),
    [
        ("JPEGImages/a.jpg", "Annotations/a.xml", "Annotations"),
        ("images/a.png", "Annotations/a.xml", "Annotations"),
        ("images/train/a.png", "Annotations/a.xml", "Annotations"),
        ("images/train/a.png", "Annotations/train/a.xml", "Annotations"),
        ("images/train/a.png", "Annotations/train/a.xml", "Annotations/train"),
        ("JPEGImages/a.b.png", "Annotations/a.b.xml", "Annotations"),
        ("images/a.png", "marks/a.xml", "marks"),
        ("JPEGImages/a.jpg", "Annotations/a.xml", "Annotations/a.xml"),
    ],
)
def test_the_image_of_an_annotation_is_found(tmp_path: Path, image: str, xml: str, entry: str) -> None:
    make_image(tmp_path / image)
    write(tmp_path / xml)
    assert images_of_folder(tmp_path / entry) == {tmp_path / image: tmp_path / xml}


def test_the_sub_folder_tells_images_of_one_name_apart(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_image(tmp_path / f"images/{split}/0.png")
        write(tmp_path / f"Annotations/{split}/0.xml")
    found = images_of_folder(tmp_path / "Annotations/val")
    assert found == {tmp_path / "images/val/0.png": tmp_path / "Annotations/val/0.xml"}


def test_images_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make_image(tmp_path / f"images/{split}/0.png")
    write(tmp_path / "Annotations/0.xml")
    with pytest.raises(InputError, match=r"0\.xml: the image may be .*train/0\.png or .*val/0\.png"):
        images_of_folder(tmp_path / "Annotations")
    found = images_of_folder(tmp_path / "Annotations", tmp_path / "images/val")
    assert list(found) == [tmp_path / "images/val/0.png"]


def test_the_file_name_in_the_annotation_is_the_last_resort(tmp_path: Path) -> None:
    make_image(tmp_path / "JPEGImages/other.png")
    write(tmp_path / "Annotations/a.xml", "<filename>other.png</filename>")
    assert list(images_of_folder(tmp_path / "Annotations")) == [tmp_path / "JPEGImages/other.png"]


def test_missing_images_name_every_place_tried(tmp_path: Path) -> None:
    write(tmp_path / "Annotations/a.xml")
    with pytest.raises(FileNotFoundError) as caught:
        images_of_folder(tmp_path / "Annotations")
    for place in ("JPEGImages", "images", "Annotations"):
        assert str(tmp_path / place) in str(caught.value)


def test_the_annotation_of_an_image_is_looked_for_from_near_to_far(tmp_path: Path) -> None:
    image = make_image(tmp_path / "images/val/a.png")
    expected = tmp_path / "Annotations/val/a.xml"
    assert annotation_of(image) == expected
    for file in (tmp_path / "images/val/a.xml", tmp_path / "Annotations/a.xml", expected):
        write(file)
        assert annotation_of(image) == file


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a  1\nb -1\nc  0\n", ["a", "b", "c"]),
        ("a b\n\n two words 1\n", ["a b", "two words"]),
        ("train\\a\n", ["train/a"]),
        ("a.jpg\nb\n", []),
        ("", []),
    ],
)
def test_a_list_of_ids_is_told_from_a_list_of_images(tmp_path: Path, text: str, ids: list[str]) -> None:
    (tmp_path / "l.txt").write_text(text, encoding="utf-8")
    assert read_ids(tmp_path / "l.txt") == ids


def test_a_list_of_ids_without_annotations_says_where_they_were_looked_for(tmp_path: Path) -> None:
    listing = tmp_path / "set/ImageSets/Main/train.txt"
    with pytest.raises(FileNotFoundError, match=r"train\.txt: neither a list of images .*set/Annotations"):
        images_of_list(listing, ["a"])


def test_an_id_without_annotation_is_background(tmp_path: Path) -> None:
    for name in "ab":
        make_image(tmp_path / f"JPEGImages/{name}.png")
    write(tmp_path / "Annotations/a.xml", item("cat", 1, 1, 9, 9))
    listing = tmp_path / "ImageSets/Main/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("b\na\n")
    (tmp_path / "data.yaml").write_text("val: ImageSets/Main/val.txt\nnames: [cat]\n", encoding="utf-8")
    labels = load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "val")
    assert [len(record.boxes) for record in labels.records] == [1, 0]
    assert (labels.report.labelled, labels.report.missing) == (1, 1)


def test_chinese_names_everywhere(tmp_path: Path) -> None:
    make_image(tmp_path / "数据/JPEGImages/图.png")
    write(tmp_path / "数据/Annotations/图.xml", item("猫", 1, 1, 9, 9))
    (tmp_path / "data.yaml").write_text("val: 数据/Annotations\nnames: [猫]\n", encoding="utf-8")
    assert len(load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "val").records[0].boxes) == 1


# The twin -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def twins(shared_data: Path, tmp_path: Path) -> Iterator[tuple[LabelSet, LabelSet]]:
    """The validation images of a real set, from its xml files and from its label files."""
    folder = shared_data / "bccd"
    text = f"path: {folder}\nval: ImageSets/Main/val.txt\nnames: [RBC, WBC, Platelets]\n"
    (tmp_path / "d.yaml").write_text(text, encoding="utf-8")
    specs = DatasetSpec.load(tmp_path / "d.yaml"), DatasetSpec.load(folder / "bccd.yaml")
    ours, theirs = (load_labels(spec, "val", cache_dir=tmp_path) for spec in specs)
    yield ours, theirs


def test_a_real_set_from_its_xml_files_equals_the_one_from_its_label_files(
    twins: tuple[LabelSet, LabelSet],
) -> None:
    ours, theirs = twins
    assert [r.image for r in ours.records] == [r.image for r in theirs.records]
    assert sum(len(r.boxes) for r in ours.records) == 1137
    for a, b in zip(ours.records, theirs.records):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
    (message,) = ours.report.messages
    assert "BloodImage_00338.xml:" in message
    assert "504 337 504 337" in message


def test_items_of_a_real_set_are_the_same_from_both(twins: tuple[LabelSet, LabelSet]) -> None:
    ours, theirs = (DetectionDataset(labels.records, 96, augment=True) for labels in twins)
    for i in range(0, 87, 17):
        np.testing.assert_allclose(ours[(0, i)].targets, theirs[(0, i)].targets, atol=1e-4)
        np.testing.assert_array_equal(ours[(0, i)].image, theirs[(0, i)].image)
