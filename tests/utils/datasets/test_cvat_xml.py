"""CVAT annotations for images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.convert import ConvertOptions, convert
from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.core.xml_file import read_xml
from utils.datasets.formats import cvat_xml
from utils.datasets.formats.annotations import MASK, NO_AREA
from utils.datasets.formats.cvat_xml import read_cvat
from utils.datasets.labels.records import LabelSet
from utils.datasets.labels.splits import load_labels

Pixels = Callable[[LabelSet], list[list[float]]]

LABELS = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "cat", "007"))
META = (
    f"<version>1.1</version><meta><job><labels>{LABELS}"
    "<label><name>nose</name><parent>dog</parent></label></labels></job></meta>"
)


def make_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((50, 100, 3), 120, np.uint8))[1].tobytes())


def entry(name: str, *shapes: str, more: str = "", wh: tuple[int, int] = (100, 50)) -> str:
    return f'<image id="0" name="{name}" width="{wh[0]}" height="{wh[1]}" {more}>\n{"".join(shapes)}</image>\n'


def annotate(file: Path, *entries: str, meta: str = META) -> Path:
    file.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{"".join(entries)}</annotations>')
    return file


BOX = '<box label="cat" occluded="0" xtl="10" ytl="5" xbr="30" ybr="15" z_order="0"></box>'


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LabelSet]:
    """Labels of one image of 100 x 50 pixels with these shapes."""

    def run(*shapes: str, yaml: str = "", wh: tuple[int, int] = (100, 50), **options: bool) -> LabelSet:
        make_image(tmp_path / "images/a.png")
        annotate(tmp_path / "annotations.xml", entry("a.png", *shapes, wh=wh))
        (tmp_path / "data.yaml").write_text(f"train: annotations.xml\n{yaml}\n", encoding="utf-8")
        return load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train", **options)

    return run


CUBOID = " ".join(
    f'{axis}{corner}{face}="{value}"'
    for face, move in (("1", 0), ("2", 4))
    for corner, (x, y) in {"tl": (10, 5), "bl": (10, 25), "tr": (30, 5), "br": (30, 25)}.items()
    for axis, value in (("x", x + move), ("y", y + move))
)


@pytest.mark.parametrize(
    ("shape", "corners"),
    [
        (BOX, [10, 5, 30, 15]),
        ('<box label="cat" xtl="40" ytl="20" xbr="60" ybr="30" rotation="90"/>', [45, 15, 55, 35]),
        ('<box label="cat" xtl="40" ytl="20" xbr="60" ybr="30" rotation="30.0"/>', [38.84, 15.67, 61.16, 34.33]),
        ('<polygon label="cat" points="10.0,5.0;30.0,10.0;20.0,25.0"/>', [10, 5, 30, 25]),
        ('<ellipse label="cat" cx="50" cy="25" rx="20" ry="10"/>', [30, 15, 70, 35]),
        ('<ellipse label="cat" cx="50" cy="25" rx="20" ry="10" rotation="90"/>', [40, 5, 60, 45]),
        ('<mask label="cat" rle="3, 4" left="10" top="5" width="20" height="10"/>', [10, 5, 30, 15]),
        (f'<cuboid label="cat" {CUBOID}/>', [10, 5, 34, 29]),
    ],
)
def test_every_shape_with_an_area_has_its_box(
    load: Callable[..., LabelSet], shape: str, corners: list[float], pixels: Pixels
) -> None:
    assert pixels(load(shape)) == [[1, *corners]]


def test_a_turned_box_is_turned_clockwise(load: Callable[..., LabelSet]) -> None:
    outline = load('<box label="cat" xtl="40" ytl="20" xbr="60" ybr="30" rotation="30"/>').records[0].segments[0]
    # The upper left corner, 10 to the left of and 5 above the centre (50, 25), moves up and right.
    assert (outline[0] * (100, 50)).tolist() == pytest.approx([43.84, 15.67], abs=0.01)


def test_classes_are_the_labels_that_the_file_defines_or_the_names_of_the_yaml(load: Callable[..., LabelSet]) -> None:
    both = BOX + BOX.replace("cat", "007").replace("30", "31")
    assert load(both).records[0].boxes[:, 0].tolist() == [1, 2]
    assert load(both, yaml="names: [007, cat]").records[0].boxes[:, 0].tolist() == [1, 0]
    with pytest.raises(InputError, match=r"annotations\.xml:\d+: '007' \(1 in all\).*; its names: are cat"):
        load(both, yaml="names: [cat]")


def test_points_lines_skeletons_and_tags_are_left_out_and_counted(load: Callable[..., LabelSet]) -> None:
    points = '<points label="cat" points="1,1;2,2"/><polyline label="cat" points="1,1;2,2"/>'
    skeleton = '<skeleton label="dog"><points label="nose" points="1,1"/></skeleton><tag label="cat"/>'
    assert load(BOX, points, skeleton).report.counts == {NO_AREA: 4}
    assert load('<mask label="cat" rle="3" left="1" top="5" width="20" height="10"/>').report.counts == {MASK: 1}
    with pytest.raises(InputError, match="points and lines only"):
        load(points)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ('<box label="cat" xtl="x" ytl="5" xbr="30" ybr="15"/>', "xtl 'x' is not a number"),
        ('<box label="cat" ytl="5" xbr="30" ybr="15"/>', "no xtl"),
        ('<box label="cat" xtl="nan" ytl="5" xbr="30" ybr="15"/>', "xtl is not finite"),
        ('<box xtl="1" ytl="5" xbr="30" ybr="15"/>', "no label"),
        ('<box label="cat" xtl="30" ytl="5" xbr="10" ybr="15" rotation="4"/>', "width and height must be above 0"),
        ('<polygon label="cat" points="1,1;2,2"/>', "a polygon of 2 points"),
        ('<polygon label="cat" points="1,1;2,2;3"/>', "points are not x,y;x,y;..."),
    ],
)
def test_a_shape_that_cannot_be_used_is_dropped_with_its_line(
    load: Callable[..., LabelSet], shape: str, problem: str
) -> None:
    labels = load(BOX, "\n", shape)
    assert len(labels.records[0].boxes) == 1
    (message,) = labels.report.messages
    assert "annotations.xml:4: " in message and problem in message


def test_boxes_made_for_another_size_are_scaled_or_the_image_is_left_out(
    load: Callable[..., LabelSet], pixels: Pixels
) -> None:
    assert pixels(load(BOX, wh=(200, 100))) == [[1, 5, 2.5, 15, 7.5]]
    with pytest.raises(InputError, match="made for 60x90 pixels, but the image has 100x50"):
        load(BOX, wh=(60, 90))


def test_a_split_has_the_images_of_its_subset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for subset in ("Train", "Validation"):
        make_image(tmp_path / f"images/{subset}/a.png")
    make_image(tmp_path / "images/b.png")
    entries = [
        entry("a.png", BOX, more='subset="Train" task_id="1"'),
        entry("a.png", more='subset="Validation" task_id="2"'),
        entry("b.png", BOX, more='subset="default"'),
    ]
    annotate(tmp_path / "annotations.xml", *entries)
    (tmp_path / "data.yaml").write_text("train: annotations.xml\nval: annotations.xml\ntest: annotations.xml\n")
    spec = DatasetSpec.load(tmp_path / "data.yaml")
    found = {split: load_labels(spec, split).records for split in ("train", "val")}
    assert [(record.image, len(record.boxes)) for record in found["train"]] == [(tmp_path / "images/Train/a.png", 1)]
    assert [(record.image, len(record.boxes)) for record in found["val"]] == [(tmp_path / "images/Validation/a.png", 0)]
    assert "1 image of subsets that are no split dropped, such as 'default'" in caplog.text
    with pytest.raises(InputError, match="none of its subsets is called like test"):
        load_labels(spec, "test")
    written = convert(ConvertOptions(source=str(tmp_path / "annotations.xml"), to="coco", output=str(tmp_path / "out")))
    assert DatasetSpec.load(written).names == ("dog", "cat", "007")
    assert {path.name for path in (tmp_path / "out/annotations").iterdir()} == {
        "instances_train.json", "instances_val.json"
    }  # fmt: skip


def test_a_file_is_read_once_for_all_its_splits_and_anew_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, whole = tmp_path / "annotations.xml", []
    for split in ("Train", "Validation"):
        make_image(tmp_path / f"images/{split}/{split}.png")
    annotate(file, *(entry(f"{split}.png", BOX, more=f'subset="{split}"') for split in ("Train", "Validation")))
    monkeypatch.setattr(cvat_xml, "read_xml", lambda path: whole.append(path) or read_xml(path))
    (tmp_path / "data.yaml").write_text("train: annotations.xml\nval: annotations.xml\n")
    spec = DatasetSpec.load(tmp_path / "data.yaml")
    for split in ("train", "val"):
        assert len(load_labels(spec, split).records[0].boxes) == 1
    convert(ConvertOptions(source=str(file), to="yolo", output=str(tmp_path / "out")))
    assert whole == [file]
    annotate(file, *(entry(f"{split}.png", BOX * 2, more=f'subset="{split}"') for split in ("Train", "Validation")))
    assert len(read_cvat(file)[0][1].children) == 2 and len(whole) == 2


def test_an_image_of_several_tasks_has_the_objects_of_all(tmp_path: Path, pixels: Pixels) -> None:
    make_image(tmp_path / "images/a.png")
    dog = BOX.replace("cat", "dog")
    annotate(tmp_path / "annotations.xml", entry("a.png", BOX), entry("a.png", dog))
    (tmp_path / "data.yaml").write_text("train: annotations.xml\n")
    labels = load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")
    assert pixels(labels) == [[1, 10, 5, 30, 15], [0, 10, 5, 30, 15]]


@pytest.mark.parametrize("place", ["a.png", "images/a.png", "elsewhere/a.png"])
def test_images_lie_beside_the_file_or_where_the_yaml_says(tmp_path: Path, place: str) -> None:
    make_image(tmp_path / place)
    annotate(tmp_path / "annotations.xml", entry("a.png", BOX))
    where = "images: elsewhere\n" if place.startswith("elsewhere") else ""
    (tmp_path / "data.yaml").write_text(f"train: annotations.xml\n{where}")
    assert load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train").records[0].image == tmp_path / place


def test_images_that_were_not_exported_name_every_place_and_the_key(tmp_path: Path) -> None:
    annotate(tmp_path / "annotations.xml", entry("a.png", BOX))
    (tmp_path / "data.yaml").write_text("train: annotations.xml\n")
    with pytest.raises(
        FileNotFoundError, match=r"none of its images found \(1 of them\), such as 'a\.png'; tried .*'images:'"
    ):
        load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<track id='0' label='cat'/>", "tracks of a video; export it as 'CVAT for images 1.1'"),
        ("", "no <image>; nothing to read"),
        ("<image id='0'/>", "annotations.xml:2: an <image> without a name"),
        ("<image", "annotations.xml:2: not valid xml"),
    ],
)
def test_a_file_that_cannot_be_used_gives_one_line(tmp_path: Path, content: str, message: str) -> None:
    annotate(tmp_path / "annotations.xml", content)
    (tmp_path / "data.yaml").write_text("train: annotations.xml\nnames: [cat]\n")
    with pytest.raises(InputError) as caught:
        load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")
    assert message in str(caught.value)


def test_a_folder_of_images_beside_such_a_file_names_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_image(tmp_path / "images/a.png")
    annotate(tmp_path / "annotations.xml", entry("a.png", BOX))
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")
    assert f"there is {tmp_path / 'annotations.xml'} of CVAT: name it in the data yaml" in caplog.text
