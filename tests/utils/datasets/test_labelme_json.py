"""LabelMe annotations."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tools.convert import ConvertOptions, convert
from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.datasets.formats.annotations import MASK, NO_AREA
from utils.datasets.labels.records import LabelSet
from utils.datasets.labels.splits import load_labels

Pixels = Callable[[LabelSet], list[list[float]]]


def make_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((50, 100, 3), 120, np.uint8))[1].tobytes())


def shape(kind: str, *points: tuple[float, float], label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def annotate(file: Path, *shapes: Any, image: str = "a.png", wh: tuple[Any, Any] = (100, 50)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    head = {"version": "5.4.1", "flags": {}, "shapes": shapes}
    whole = {**head, "imagePath": image, "imageData": None, "imageHeight": wh[1], "imageWidth": wh[0]}
    file.write_text(json.dumps(whole), encoding="utf-8")


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LabelSet]:
    """Labels of one image of 100 x 50 pixels with these shapes."""

    def run(*shapes: Any, names: str = "[cat, dog]", wh: tuple[Any, Any] = (100, 50), **options: bool) -> LabelSet:
        make_image(tmp_path / "data/a.png")
        annotate(tmp_path / "data/a.json", *shapes, wh=wh)
        (tmp_path / "data.yaml").write_text(f"train: data\nnames: {names}\n", encoding="utf-8")
        return load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train", **options)

    return run


def mask_of(rows: int, columns: int) -> str:
    """A mask with a frame of two empty pixels."""
    mask = np.zeros((rows, columns), np.uint8)
    mask[2:-2, 2:-2] = 1
    return base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()


TURNED = [(50, 5), (70, 25), (50, 45), (30, 25)]


@pytest.mark.parametrize(
    ("item", "corners"),
    [
        (shape("rectangle", (10, 5), (30, 15)), [10, 5, 30, 15]),
        (shape("rectangle", (30, 15), (10, 5)), [10, 5, 30, 15]),
        (shape("rectangle", (10, 5), (30, 5), (30, 15), (10, 15)), [10, 5, 30, 15]),
        (shape("polygon", (10, 5), (30, 10), (20, 25)), [10, 5, 30, 25]),
        (shape("rotation", *TURNED, direction=0.78), [30, 5, 70, 45]),
        (shape("oriented_rectangle", *TURNED), [30, 5, 70, 45]),
        (shape("circle", (50, 25), (53, 29)), [45, 20, 55, 30]),
        (shape("mask", (10, 5), (29, 14), mask=mask_of(10, 20)), [12, 7, 28, 13]),
        (shape("mask", (10, 5), (29, 14), mask=None), [10, 5, 30, 15]),
        ({"label": "cat", "points": [[10, 5], [30, 10], [20, 25]]}, [10, 5, 30, 25]),  # of an old release
    ],
    ids=lambda value: value.get("shape_type", "old") if isinstance(value, dict) else "",
)
def test_every_shape_with_an_area_has_its_box(
    load: Callable[..., LabelSet], item: Any, corners: list[float], pixels: Pixels
) -> None:
    assert pixels(load(item)) == [[0, *corners]]


def test_outlines_are_kept_where_the_shape_has_one(load: Callable[..., LabelSet]) -> None:
    record = load(shape("polygon", *TURNED), shape("rectangle", (1, 1), (9, 9), label="dog")).records[0]
    np.testing.assert_allclose(record.segments[0] * (100, 50), TURNED, atol=1e-4)
    assert len(record.segments[1]) == 0
    assert record.boxes[:, 0].tolist() == [0, 1]


def test_shapes_of_one_group_are_one_object(load: Callable[..., LabelSet], pixels: Pixels) -> None:
    parts = [shape("polygon", (x, 5), (x + 10, 5), (x, 15), group_id=3) for x in (10, 40)]
    labels = load(*parts, shape("polygon", (70, 5), (80, 5), (70, 15)), shape("rectangle", (0, 0), (9, 9), group_id=4))
    assert pixels(labels) == [[0, 10, 5, 50, 15], [0, 70, 5, 80, 15], [0, 0, 0, 9, 9]]


def test_points_and_lines_are_left_out_and_counted(
    load: Callable[..., LabelSet], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    others = [shape("point", (1, 1)), shape("linestrip", (1, 1), (5, 5)), shape("line", (1, 1), (5, 5))]
    labels = load(
        shape("rectangle", (10, 5), (30, 15)), *others, shape("rectangle", (1, 1), (9, 9), label="__ignore__")
    )
    assert labels.report.counts == {NO_AREA: 4}
    assert "4 points, lines and other shapes without a box dropped" in caplog.text
    with pytest.raises(InputError, match="has a box: points and lines only"):
        load(*others)


def test_of_a_mask_the_box_is_used_and_this_is_said(load: Callable[..., LabelSet]) -> None:
    assert load(shape("mask", (10, 5), (29, 14), mask=mask_of(10, 20))).report.counts == {MASK: 1}


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (shape("polygon", (1, 1), (2, 2)), "2 points, at least 3 are needed"),
        (shape("rectangle", (1, 1)), "1 points, at least 2 are needed"),
        (shape("rectangle", (1, 1), (1, "x")), "'x' is not a number"),
        (shape("rectangle", (5, 5), (5, 9)), "width and height must be above 0"),
        (shape("rectangle", (1, 1), (9, 9), label=None), "not an object with a label"),
        ("text", "not an object with a label"),
        (shape("mask", (1, 1), (9, 9), mask="no png"), "mask: not a PNG in base64"),
        (shape("mask", (1, 1), (9, 9), mask="AAAA"), "mask: not a readable image"),
        (shape("mask", (1, 1), (9, 9), mask=mask_of(200, 20)), "a mask of 20x200 pixels is larger than the image"),
        (shape("mask", (1, 1), (9, 9), mask=mask_of(4, 4)), "a mask without pixels"),
    ],
)
def test_a_shape_that_cannot_be_used_is_dropped_and_the_others_stay(
    load: Callable[..., LabelSet], item: Any, problem: str
) -> None:
    labels = load(item, shape("rectangle", (10, 5), (30, 15)))
    assert len(labels.records[0].boxes) == 1
    (message,) = labels.report.messages
    assert "a.json: shapes[0]" in message and problem in message


def test_boxes_made_for_another_shape_leave_the_image_out(load: Callable[..., LabelSet], pixels: Pixels) -> None:
    with pytest.raises(InputError, match=r"a\.json: .*made for 60x90 pixels, but the image has 100x50"):
        load(shape("rectangle", (10, 5), (30, 15)), wh=(60, 90))
    assert pixels(load(shape("rectangle", (20, 10), (60, 30)), wh=(200, 100))) == [[0, 10, 5, 30, 15]]


def test_an_unknown_label_stops_the_run_with_the_nearest_name(load: Callable[..., LabelSet]) -> None:
    with pytest.raises(InputError, match=r"a\.json: 'cats'; did you mean 'cat'\? \(1 in all\)"):
        load(shape("rectangle", (10, 5), (30, 15), label="cats"))


@pytest.mark.parametrize(
    ("entry", "annotation", "stated", "image"),
    [
        ("data/a.json", "data/a.json", "a.png", "data/a.png"),
        ("json", "json/a.json", "..\\pics\\a.png", "pics/a.png"),
        ("json", "json/x.json", "../pics/a.png", "pics/a.png"),
        ("json", "json/a.json", "C:\\other\\a.png", "images/a.png"),
        ("images/train", "labels/train/a.json", "a.png", "images/train/a.png"),
        ("images/train", "images/train/a.json", "a.png", "images/train/a.png"),
        ("list.txt", "data/a.json", "a.png", "data/a.png"),
    ],
)
def test_images_and_annotations_find_each_other(
    tmp_path: Path, entry: str, annotation: str, stated: str, image: str, pixels: Pixels
) -> None:
    make_image(tmp_path / image)
    annotate(tmp_path / annotation, shape("rectangle", (10, 5), (30, 15)), image=stated)
    (tmp_path / "list.txt").write_text("data/a.png\n")
    (tmp_path / "data.yaml").write_text(f"train: {entry}\nnames: [cat]\n")
    labels = load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")
    assert [record.image for record in labels.records] == [tmp_path / image]
    assert pixels(labels) == [[0, 10, 5, 30, 15]]


def test_label_files_come_first_and_other_json_files_are_no_annotations(tmp_path: Path, pixels: Pixels) -> None:
    make_image(tmp_path / "data/a.png")
    (tmp_path / "data.yaml").write_text("train: data\nnames: [cat]\n")
    (tmp_path / "data/a.json").write_text('{"exif": {}}')
    assert load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train").report.missing == 1
    annotate(tmp_path / "data/a.json", shape("rectangle", (10, 5), (30, 15)))
    (tmp_path / "data/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert pixels(load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")) == [[0, 25, 12.5, 75, 37.5]]


def test_a_folder_of_labelme_files_is_converted_with_its_own_names(tmp_path: Path) -> None:
    make_image(tmp_path / "data/a.png")
    annotate(
        tmp_path / "data/a.json",
        shape("rectangle", (10, 5), (30, 15), label="007"),
        shape("polygon", *TURNED, label="cat"),
        shape("point", (1, 1), label="nose"),
    )
    written = convert(ConvertOptions(source=str(tmp_path / "data"), to="yolo", output=str(tmp_path / "out")))
    assert DatasetSpec.load(written).names == ("007", "cat")
    rows = (tmp_path / "out/labels/train/a.txt").read_text().splitlines()
    numbers = [pytest.approx([0, *[0.2] * 4]), pytest.approx([1, 0.5, 0.1, 0.7, 0.5, 0.5, 0.9, 0.3, 0.5])]
    assert [list(map(float, row.split())) for row in rows] == numbers


@pytest.mark.parametrize("content", ["{", '{"shapes": 3, "imagePath": "a.png"}', '{"shapes": [], "a": ' + "[" * 30_000])
def test_a_broken_file_leaves_its_image_out(load: Callable[..., LabelSet], tmp_path: Path, content: str) -> None:
    make_image(tmp_path / "data/b.png")
    annotate(tmp_path / "data/b.json", shape("rectangle", (10, 5), (30, 15)), image="b.png")
    load(shape("rectangle", (10, 5), (30, 15)))
    (tmp_path / "data/a.json").write_text(content)
    labels = load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "train")
    assert [record.image.name for record in labels.records] == ["b.png"]
    assert "a.json: labels cannot be read" in labels.report.messages[0]
