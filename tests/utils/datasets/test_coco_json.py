"""COCO annotations as labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.datasets.dataset import DetectionDataset
from utils.datasets.formats.annotations import (
    CROWD,
    CROWD_AS_REQUESTED,
    MASK,
    NOTE,
    UnreadableLabels,
    frame,
    merge_outlines,
)
from utils.datasets.formats.coco_json import CocoLabels, image_folders
from utils.datasets.labels.records import LabelSet
from utils.datasets.labels.splits import load_labels

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}]


def make_image(path: Path, width: int = 100, height: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), 120, np.uint8))[1].tobytes())
    return path


def content(boxes: list[Any], /, **changes: Any) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}]
    return {"images": images, "annotations": boxes, "categories": CATEGORIES, **changes}


def box(*bbox: float, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": 7, "image_id": 1, "category_id": category, "bbox": list(bbox), **more}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LabelSet]:
    """``load(annotations or whole content, split options ...)``: the labels of one json beside its one image."""

    def run(given: Any, yaml_lines: str = "", **options: Any) -> LabelSet:
        make_image(tmp_path / "a.png")
        whole = content(given) if isinstance(given, list) else given
        text = whole if isinstance(whole, str) else json.dumps(whole)
        (tmp_path / "val.json").write_text(text, encoding="utf-8")
        (tmp_path / "data.yaml").write_text(f"val: val.json\n{yaml_lines}", encoding="utf-8")
        single = options.get("single_cls", False)
        return load_labels(DatasetSpec.load(tmp_path / "data.yaml", single), "val", **options)

    return run


# Boxes and classes ----------------------------------------------------------------------------------------------------


def test_a_box_in_pixels_becomes_fractions_of_the_image(load: Callable[..., LabelSet]) -> None:
    (record,) = load([box(10, 5, 20, 10)]).records
    np.testing.assert_allclose(record.boxes, [[0, 0.2, 0.2, 0.2, 0.2]], atol=1e-7)
    assert record.hw == (50, 100)


def test_category_ids_with_gaps_become_classes_in_their_order(load: Callable[..., LabelSet]) -> None:
    (record,) = load([box(10, 5, 20, 10, category=17), box(1, 1, 2, 2, category=3)]).records
    assert record.boxes[:, 0].tolist() == [1, 0]


def test_names_of_the_yaml_decide_on_the_classes(load: Callable[..., LabelSet]) -> None:
    (record,) = load([box(10, 5, 20, 10, category=17)], "names: [dog, cow, cat]\n").records
    assert record.boxes[:, 0].tolist() == [0]


def test_a_category_without_objects_need_not_be_among_the_names(load: Callable[..., LabelSet]) -> None:
    assert load([box(10, 5, 20, 10, category=17)], "names: [dog]\n").records[0].boxes[0, 0] == 0


def test_objects_of_an_unknown_name_stop_the_run_with_the_nearest_name(load: Callable[..., LabelSet]) -> None:
    with pytest.raises(
        InputError, match=r"val\.json: annotation 7 .*category 3 'cat' is not among .*did you mean 'cats'"
    ):
        load([box(10, 5, 20, 10)], "names: [cats, dog]\n")


def test_a_category_id_that_is_nowhere_stops_the_run(load: Callable[..., LabelSet]) -> None:
    with pytest.raises(InputError, match=r"annotation 7 .*category_id 99 is not among the categories"):
        load([box(10, 5, 20, 10, category=99)])


def test_without_strictness_unknown_classes_are_only_reported(load: Callable[..., LabelSet]) -> None:
    labels = load([box(10, 5, 20, 10, category=99), box(1, 1, 2, 2)], strict=False)
    assert len(labels.records[0].boxes) == 1
    assert labels.report.counts["unknown class"] == 1


def test_a_scan_without_strictness_does_not_hide_the_error_from_the_next_one(load: Callable[..., LabelSet]) -> None:
    wrong = [box(10, 5, 20, 10, category=99), box(1, 1, 2, 2)]
    load(wrong, strict=False)
    with pytest.raises(InputError, match="99"):
        load(wrong)


def test_single_cls_makes_everything_class_0(load: Callable[..., LabelSet]) -> None:
    (record,) = load([box(10, 5, 20, 10, category=17), box(1, 1, 2, 2)], single_cls=True).records
    assert record.boxes[:, 0].tolist() == [0, 0]


def test_other_names_are_not_answered_from_the_cache(load: Callable[..., LabelSet]) -> None:
    annotations = [box(10, 5, 20, 10, category=17)]
    assert load(annotations, "names: [cat, dog]\n").records[0].boxes[0, 0] == 1
    assert load(annotations, "names: [dog, cat]\n").records[0].boxes[0, 0] == 0


def test_the_second_scan_comes_from_the_cache_and_is_the_same(load: Callable[..., LabelSet], tmp_path: Path) -> None:
    outline = [10, 5, 30, 5, 30, 15]
    first, second = (load([box(10, 5, 20, 10, segmentation=[outline]), box(-50, 0, 60, 9)]) for _ in range(2))
    assert (tmp_path / "val.json.cache").is_file()
    np.testing.assert_array_equal(first.records[0].boxes, second.records[0].boxes)
    np.testing.assert_array_equal(first.records[0].segments[0], second.records[0].segments[0])
    assert first.report == second.report


def test_a_file_that_has_not_changed_is_not_parsed_again(
    load: Callable[..., LabelSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = [box(10, 5, 20, 10), {"id": 5, "image_id": 99}]
    first = load(annotations)
    monkeypatch.setattr("utils.datasets.formats.coco_json.read_json", lambda file: pytest.fail("parsed"))
    data = first.records[0].image.parent / "data.yaml"
    second = load_labels(DatasetSpec.load(data), "val")
    np.testing.assert_array_equal(first.records[0].boxes, second.records[0].boxes)
    assert first.report == second.report
    assert second.report.dropped_rows == 1


def test_a_known_list_of_images_does_not_replace_the_labels(load: Callable[..., LabelSet], tmp_path: Path) -> None:
    load([box(10, 5, 20, 10)])
    (tmp_path / "val.json.cache").unlink()
    labels = load_labels(DatasetSpec.load(tmp_path / "data.yaml"), "val")
    np.testing.assert_allclose(labels.records[0].boxes, [[0, 0.2, 0.2, 0.2, 0.2]], atol=1e-7)


# What is left out or changed ------------------------------------------------------------------------------------------


def test_crowds_are_left_out_and_counted(load: Callable[..., LabelSet], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    labels = load([box(10, 5, 20, 10), box(0, 0, 90, 40, iscrowd=1, segmentation={"counts": [1], "size": [50, 100]})])
    assert len(labels.records[0].boxes) == 1
    assert labels.report.counts[CROWD] == 1
    assert "1 crowd annotations dropped" in caplog.text


@pytest.mark.parametrize(("value", "kept"), [("1", 0), (True, 0), (1.0, 0), ("0", 1), (False, 1), (None, 1)])
def test_a_crowd_may_be_marked_by_text_or_a_truth_value(load: Callable[..., LabelSet], value: Any, kept: int) -> None:
    labels = load([box(10, 5, 20, 10), box(0, 0, 90, 40, iscrowd=value)])
    assert len(labels.records[0].boxes) == 1 + kept


CVAT_MASK = {"iscrowd": 1, "segmentation": {"counts": [10, 5, 4985], "size": [50, 100]}}


def test_a_set_of_crowds_only_is_refused_with_the_key_that_helps(load: Callable[..., LabelSet]) -> None:
    with pytest.raises(
        InputError,
        match=r"annotation of .*val\.json is a crowd .*CVAT marks masks so: a data yaml .* has .crowd: keep",
    ):
        load([box(10, 5, 20, 10, **CVAT_MASK)])


def test_crowds_are_objects_like_others_when_the_yaml_keeps_them(load: Callable[..., LabelSet]) -> None:
    annotations = [box(10, 5, 20, 10, **CVAT_MASK), box(50, 20, 20, 10)]
    (record,) = load(annotations, "crowd: keep\n").records
    np.testing.assert_allclose(record.boxes, [[0, 0.2, 0.2, 0.2, 0.2], [0, 0.6, 0.5, 0.2, 0.2]], atol=1e-7)
    assert len(load(annotations).records[0].boxes) == 1  # not answered from the cache of the other


def test_a_crowd_of_an_unknown_name_stops_the_run_only_when_it_is_kept(load: Callable[..., LabelSet]) -> None:
    annotations = [box(10, 5, 20, 10, category=17, **CVAT_MASK), box(50, 20, 20, 10)]
    assert len(load(annotations, "names: [cat]\n").records[0].boxes) == 1
    with pytest.raises(InputError, match="category 17 'dog' is not among the names"):
        load(annotations, "names: [cat]\ncrowd: keep\n")


def test_crowds_that_the_yaml_drops_are_counted_and_no_loss(load: Callable[..., LabelSet]) -> None:
    labels = load([box(10, 5, 20, 10, **CVAT_MASK), box(50, 20, 20, 10)], "crowd: drop\n")
    assert len(labels.records[0].boxes) == 1
    assert labels.report.counts == {CROWD_AS_REQUESTED: 1}


def test_an_image_without_annotations_is_background(load: Callable[..., LabelSet]) -> None:
    labels = load([])
    assert labels.records[0].boxes.shape == (0, 5)
    assert (labels.report.empty, labels.report.missing) == (1, 0)


def test_a_box_is_clipped_to_the_image_and_far_outside_this_is_said(load: Callable[..., LabelSet]) -> None:
    labels = load([box(-20, -5, 40, 15), box(90, 0, 10.5, 10)])
    np.testing.assert_allclose(labels.records[0].boxes, [[0, 0.1, 0.1, 0.2, 0.2], [0, 0.95, 0.1, 0.1, 0.2]], atol=1e-7)
    assert labels.report.clipped_rows == 2
    (note,) = [finding for finding in labels.report.findings if finding.kind == NOTE]
    assert "annotation 7: bbox [-20, -5, 40, 15]: reaches beyond the 100x50 pixels" in str(note)


def test_a_repeated_annotation_counts_once(load: Callable[..., LabelSet]) -> None:
    labels = load([box(10, 5, 20, 10), box(10, 5, 20, 10)])
    assert (len(labels.records[0].boxes), labels.report.duplicate_rows) == (1, 1)


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([10, 5, 0, 10], "width and height must be above 0"),
        ([10, 5, -20, 10], "width and height must be above 0"),
        ([200, 5, 20, 10], "lies outside the 100x50 pixels"),
        ([10, 5, 20], "3 numbers instead of 4"),
        ([10, 5, "20", 10], "'20' is not a number"),
        ([10, 5, None, 10], "'None' is not a number"),
        ([10, 5, float("nan"), 10], "not finite"),
        ([10, 5, 10**400, 10], "beyond all bounds"),
        ("10 5 20 10", "not a list of numbers"),
        (None, "not a list of numbers"),
    ],
)
def test_a_box_that_cannot_be_used_is_dropped_with_file_and_annotation(
    load: Callable[..., LabelSet], bbox: Any, reason: str
) -> None:
    labels = load([box(1, 1, 2, 2), {"id": 88, "image_id": 1, "category_id": 3, "bbox": bbox}])
    assert len(labels.records[0].boxes) == 1
    (message,) = labels.report.messages
    assert "val.json: annotation 88: bbox" in message
    assert reason in message


def test_annotations_of_no_image_are_reported(load: Callable[..., LabelSet], caplog: pytest.LogCaptureFixture) -> None:
    labels = load([box(1, 1, 2, 2), {"id": 5, "image_id": 99}, {"id": 6}, "what"])
    problems = " ".join(labels.report.messages)
    assert labels.report.dropped_rows == 3
    assert "annotation 5: image_id 99 is not among the images" in problems
    assert "annotations[3]: what is not an object" in problems
    assert "annotation 5: image_id 99 is not among the images" in caplog.text


# Outlines -------------------------------------------------------------------------------------------------------------


def test_a_polygon_becomes_the_outline_and_the_box_stays(load: Callable[..., LabelSet]) -> None:
    triangle = [10, 5, 30, 5, 30, 15]
    (record,) = load([box(10, 5, 20, 10, segmentation=[triangle]), box(1, 1, 2, 2, segmentation=[])]).records
    np.testing.assert_allclose(record.segments[0], [[0.1, 0.1], [0.3, 0.1], [0.3, 0.3]], atol=1e-7)
    assert len(record.segments[1]) == 0
    np.testing.assert_allclose(record.boxes[0], [0, 0.2, 0.2, 0.2, 0.2], atol=1e-7)


def test_a_polygon_that_is_not_in_a_list_is_understood(load: Callable[..., LabelSet]) -> None:
    (record,) = load([box(10, 5, 20, 10, segmentation=[10, 5, 30, 5, 30, 15])]).records
    assert len(record.segments[0]) == 3


def test_several_parts_become_one_outline_with_their_area_and_bounds() -> None:
    parts = [np.array([[0, 0], [2, 0], [2, 2], [0, 2]]), np.array([[5, 5], [9, 5], [9, 6], [5, 6]])]
    parts.append(np.array([[7, 0], [8, 0], [8, 1], [7, 1]]))
    x, y = merge_outlines(parts).T.astype(float)
    assert abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 == 4 + 4 + 1
    assert (x.min(), y.min(), x.max(), y.max()) == (0, 0, 9, 6)
    mask = np.zeros((8, 11), np.uint8)
    cv2.fillPoly(mask, [merge_outlines(parts).astype(np.int32)], 1)
    assert mask[1, 1] == mask[5, 7] == mask[0, 8] == 1
    assert mask[7, 1] == mask[2, 9] == 0


def test_a_run_length_mask_leaves_the_box(load: Callable[..., LabelSet]) -> None:
    labels = load([box(10, 5, 20, 10, segmentation={"counts": "abc", "size": [50, 100]})])
    assert labels.records[0].segments == ()
    assert labels.report.counts[MASK] == 1


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [["x"] * 6],
        [[1, 2, 3, 4, 5, None]],
        [[1, 2, 3, 4, 5, 10**400]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[[1, 2], [3, 4], [5, 6]]],
        [[[1, 2], [3, 4], [5, 6], [7, 8], [9, 9], [1, 1]]],
        ["abcdef"],
        "abc",
        7,
    ],
)
def test_a_polygon_that_cannot_be_used_leaves_the_box_and_a_note(
    load: Callable[..., LabelSet], segmentation: Any
) -> None:
    labels = load([box(10, 5, 20, 10, segmentation=segmentation)])
    assert len(labels.records[0].boxes) == 1
    assert labels.records[0].segments == ()
    assert labels.report.counts[NOTE] == 1


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_boxes_made_for_a_larger_copy_are_scaled() -> None:
    assert frame((200, 100), (50, 100)) == (200, 100)
    assert frame((201, 100), (50, 100)) == (201, 100)  # a pixel of rounding


def test_without_a_stated_size_the_pixels_are_those_of_the_image() -> None:
    assert frame(None, (50, 100)) == (100, 50)


def test_boxes_made_for_another_shape_leave_the_image_out(load: Callable[..., LabelSet]) -> None:
    with pytest.raises(UnreadableLabels, match="50x100 pixels, but the image has 100x50, perhaps turned"):
        frame((50, 100), (50, 100))
    images = [{"id": 1, "file_name": "a.png", "width": 50, "height": 100}]
    with pytest.raises(InputError, match=r"no image of 1 is usable.*made for 50x100 pixels"):
        load(content([box(1, 1, 2, 2)], images=images))


# The file -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ('{"images": [\n{"id": 1,', r"val\.json:2: not valid json: the file ends too early"),
        ('{"images": [\n{"id" 1}]}', r"val\.json:2: not valid json: .*column 7"),
        ('{"images": "unfin', r"val\.json:1: not valid json: the file ends too early"),
        ("", r"val\.json:1: not valid json: the file ends too early"),
        ("[" * 100_000, r"val\.json: not a usable json file"),
        ('{"images": [' + "1" * 5000 + "]}", r"val\.json: not a usable json file"),
        ("3", "no 'categories'"),
        ('[{"image_id": 1}]', "a list, as detections are stored"),
        ("{}", "no 'categories'"),
        (content([], categories={}), "'categories' is not a list of classes"),
        (content([], categories=[]), "'categories' is not a list of classes"),
        (content([], categories=["cat"]), r'categories\[0\] is "cat", not an object'),
        (content([], categories=[{"id": "1", "name": "a"}]), r'categories\[0\]: id "1" is not a whole number'),
        (content([], categories=[{"id": 1}]), r"categories\[0\] \(id 1\): name null is not text"),
        (content([], categories=[{"id": 1, "name": "a"}] * 2), r"categories\[1\]: id 1 is taken by 'a'"),
        (content([], categories=[{"id": i, "name": "a"} for i in (4, 9)]), "categories 4 and 9 are both called 'a'"),
        (content([], images=[]), "'images' is empty"),
        (content([], images={}), "'images' is not a list"),
        (content([], annotations=None), "'annotations' is not a list"),
        ({"image": [], "annotations": [], "categories": CATEGORIES}, "no 'images'; did you mean 'image'"),
        (content([], images=["a.png"]), r"images\[0\] is a.png, not an object"),
        (content([], images=[{"file_name": "a.png"}]), r"images\[0\]: id None is neither"),
        (content([], images=[{"id": 1}]), r"images\[0\] \(id 1\): file_name None is not the name"),
        (content([], images=[{"id": 1, "file_name": "a.png", "width": -3, "height": 5}]), "width -3, height 5: not"),
        (content([], images=[{"id": 1, "file_name": "a.png", "width": "9", "height": 5}]), "'9' is not a number"),
        (content([], images=[{"id": 1, "file_name": n} for n in "ab"]), r"images\[1\]: id 1 is taken by a"),
    ],
)
def test_a_file_that_is_no_coco_file_gives_one_line(load: Callable[..., LabelSet], whole: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(whole)
    assert "\n" not in str(caught.value)
    assert "val.json" in str(caught.value)


def test_huge_ids_and_ids_that_are_text_are_fine(load: Callable[..., LabelSet]) -> None:
    whole = content([])
    whole["images"][0]["id"] = 10**30
    whole["categories"] = [{"id": 10**30, "name": "cat"}]
    whole["annotations"] = [{"id": 10**40, "image_id": 10**30, "category_id": 10**30, "bbox": [10, 5, 20, 10]}]
    assert len(load(whole).records[0].boxes) == 1
    whole["images"][0]["id"] = whole["annotations"][0]["image_id"] = "eins"
    assert len(load(whole).records[0].boxes) == 1


# Images -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["annotations/a.png", "val2017/a.png", "images/val2017/a.png", "images/val/a.png", "images/a.png", "a.png"]
)
def test_images_are_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    image = make_image(tmp_path / place)
    file = tmp_path / "annotations/instances_val2017.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content([])), encoding="utf-8")
    assert CocoLabels(file, None, split="val").images == [image]


@pytest.mark.parametrize("name", ["sub\\a.png", "sub/a.png", "/data/upload/sub/a.png", "C:\\x\\a.png"])
def test_file_names_with_folders_are_understood(tmp_path: Path, name: str) -> None:
    image = make_image(tmp_path / "sub/a.png") if name.startswith("sub") else make_image(tmp_path / "a.png")
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content([], images=[{"id": 1, "file_name": name}])), encoding="utf-8")
    assert CocoLabels(file, None).images == [image]


def test_a_given_folder_comes_before_all_others(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    assert image_folders(file, "val", tmp_path / "pics")[0] == tmp_path / "pics"


def test_images_of_other_names_are_refused_when_they_lead_to_one_file(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    file = tmp_path / "x.json"
    images = [{"id": i, "file_name": f"{i}/a.png"} for i in (1, 2)]
    file.write_text(json.dumps(content([], images=images)), encoding="utf-8")
    with pytest.raises(InputError, match=r"'1/a.png' and '2/a.png' both lead to"):
        CocoLabels(file, None)


def test_an_image_that_is_listed_twice_has_the_objects_of_both(load: Callable[..., LabelSet]) -> None:
    images = [{"id": i, "file_name": "a.png"} for i in (1, 2)]
    labels = load(content([box(1, 1, 2, 2), {**box(5, 5, 2, 2), "image_id": 2}], images=images))
    assert [len(record.boxes) for record in labels.records] == [2]


def test_a_missing_image_is_said_to_be_missing_beside_the_others(tmp_path: Path) -> None:
    image = make_image(tmp_path / "images/val/a.png")
    file = tmp_path / "annotations/val.json"
    file.parent.mkdir()
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    file.write_text(json.dumps(content([], images=images)), encoding="utf-8")
    assert CocoLabels(file, None).images == [image, tmp_path / "images/val/b.png"]


def test_missing_images_name_every_place_tried(tmp_path: Path) -> None:
    file = tmp_path / "annotations/instances_val.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content([])), encoding="utf-8")
    with pytest.raises(FileNotFoundError) as caught:
        CocoLabels(file, None)
    for place in ("annotations", "val", "images/val", "images"):
        assert str(tmp_path / place) in str(caught.value)
    assert "'a.png'" in str(caught.value)
    assert "images:" in str(caught.value)


def test_some_missing_images_are_left_out_by_name(load: Callable[..., LabelSet]) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "gone.png"}]
    labels = load(content([box(1, 1, 2, 2)], images=images))
    assert [record.image.name for record in labels.records] == ["a.png"]
    assert labels.report.corrupt == 1
    assert "gone.png" in labels.report.messages[0]


def test_chinese_file_names_and_classes(tmp_path: Path) -> None:
    make_image(tmp_path / "图片/猫.png")
    whole = content([box(1, 1, 2, 2)], images=[{"id": 1, "file_name": "猫.png"}])
    whole["categories"] = [{"id": 3, "name": "猫咪"}]
    (tmp_path / "标注.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "data.yaml").write_text("val: 标注.json\nimages: 图片\n", encoding="utf-8")
    spec = DatasetSpec.load(tmp_path / "data.yaml")
    assert spec.names == ("猫咪",)
    assert len(load_labels(spec, "val").records[0].boxes) == 1


# The twin -------------------------------------------------------------------------------------------------------------


def test_a_real_set_from_its_json_equals_the_one_from_its_label_files(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "tiny-coco"
    (tmp_path / "d.yaml").write_text(f"path: {folder}\nval: annotations/instances_val2017.json\n", encoding="utf-8")
    spec, plain = DatasetSpec.load(tmp_path / "d.yaml"), DatasetSpec.load(folder / "tiny-coco.yaml")
    assert spec.names == plain.names
    assert (spec.category_ids[0], spec.category_ids[-1], len(spec.category_ids)) == (1, 90, 80)
    ours, theirs = (load_labels(s, "val", cache_dir=tmp_path) for s in (spec, plain))
    assert [r.image for r in ours.records] == [r.image for r in theirs.records]
    for a, b in zip(ours.records, theirs.records):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
    assert ours.report.counts[CROWD] == 5
    assert sum(len(r.boxes) for r in ours.records) == 377
    pairs = [DetectionDataset(labels.records, 64, rect=True, batch_size=4) for labels in (ours, theirs)]
    for i in range(0, 50, 7):
        a, b = (dataset[i] for dataset in pairs)
        np.testing.assert_allclose(a.targets, b.targets, atol=1e-4)
        np.testing.assert_array_equal(a.image, b.image)
