"""Numbers of images and classes in COCO files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.datasets.labels.records import LabelRecord
from utils.evaluation import ImageResult
from utils.evaluation.coco_results import CocoResults, find_annotations, ground_truth_from_labels, read_ground_truth
from utils.metrics.coco import coco_tool

NAMES = ("cat", "dog")


def record(path: str, boxes: list[list[float]] | None = None) -> LabelRecord:
    return LabelRecord(Path(path), None, (100, 200), np.array(boxes or [], np.float32).reshape(-1, 5))


def result(path: str, *detections: list[float]) -> ImageResult:
    found = torch.tensor(detections).reshape(-1, 6)
    return ImageResult(path, (100, 200), found, torch.zeros(0, 5), np.zeros((len(found), 10), bool))


def annotation_file(folder: Path, **changed: Any) -> Path:
    content = {
        "images": [{"id": 70, "file_name": "b.png"}, {"id": "x1", "file_name": "deep/a_1.png"}],
        "annotations": [
            {"id": 5, "image_id": 70, "category_id": 18, "bbox": [1, 2, 30, 40], "area": 900, "iscrowd": 1},
            {"id": 6, "image_id": "x1", "category_id": 17, "bbox": [0, 0, 10, 10]},
            {"id": 7, "image_id": 70, "category_id": 99, "bbox": [0, 0, 10, 10]},
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 99, "name": "bird"}],
    }
    file = folder / "own.json"
    file.write_text(json.dumps(content | changed), encoding="utf-8")
    return file


def test_numbers_come_from_the_file_by_name_of_image_and_class(tmp_path: Path) -> None:
    truth = read_ground_truth(annotation_file(tmp_path), [record("/data/deep/a_1.png"), record("/data/b.png")], NAMES)
    assert truth.image_ids == {"/data/deep/a_1.png": "x1", "/data/b.png": 70}
    assert truth.category_ids == (17, 18)
    assert truth.boxes.tolist() == [[1, 1, 1, 2, 30, 40, 900, 1], [0, 0, 0, 0, 10, 10, 100, 0]]


def test_crowds_that_the_data_yaml_keeps_are_objects_of_the_truth(tmp_path: Path) -> None:
    truth = read_ground_truth(annotation_file(tmp_path), [record("/data/b.png")], NAMES, keep_crowds=True)
    assert truth.boxes.tolist() == [[0, 1, 1, 2, 30, 40, 900, 0]]


def test_the_supercategory_that_shares_its_name_with_the_class_is_not_scored_for_it(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 17, "name": "cat", "supercategory": "cat"}]
    truth = read_ground_truth(annotation_file(tmp_path, categories=categories), [record("/data/a_1.png")], ("cat",))
    assert truth.category_ids == (17,)
    assert truth.boxes.tolist() == [[0, 0, 0, 0, 10, 10, 100, 0]]


def test_the_file_that_is_written_has_these_numbers_and_boxes_from_the_corner(tmp_path: Path) -> None:
    truth = read_ground_truth(annotation_file(tmp_path), [record("/data/a_1.png"), record("/data/b.png")], NAMES)
    collected = CocoResults(truth)
    collected.on_image(result("/data/b.png", [1, 2, 31.00049, 42, 0.1234567, 1]))
    collected.on_image(result("/data/unknown.png", [1, 2, 3, 4, 0.5, 1]))
    collected.on_image(result("/data/a_1.png", [0, 0, 5, 5, 0.5, 0]))
    assert collected.write(tmp_path / "out.json") == 2
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == [
        {"image_id": 70, "category_id": 18, "bbox": [1.0, 2.0, 30.0, 40.0], "score": 0.12346},
        {"image_id": "x1", "category_id": 17, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.5},
    ]


def test_an_image_that_the_set_names_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box, found = [0, 0.5, 0.5, 0.2, 0.4], [80.0, 30.0, 120.0, 70.0, 0.9, 0.0]
    records = [record(f"/data/{name}.png", [box]) for name in ("a", "a", "b", "c")]
    entries = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("abc")]
    objects = [{"id": n, "image_id": n, "category_id": 17, "bbox": [80, 30, 40, 40]} for n in range(3)]
    written = annotation_file(tmp_path, images=entries, annotations=objects)
    for truth in (ground_truth_from_labels(records, NAMES), read_ground_truth(written, records, NAMES)):
        collected = CocoResults(truth)
        for one in records:
            collected.on_image(result(str(one.image), found))
        assert truth.boxes[:, 0].tolist() == [0, 1, 2]
        assert collected.write(tmp_path / "out.json") == 3
        if coco_tool():
            assert collected.metrics().by_name()["AP"] == pytest.approx(1)
    assert not caplog.text


def test_an_image_that_the_file_lists_twice_has_the_objects_of_both(tmp_path: Path) -> None:
    entries = [{"id": 3, "file_name": "a.png"}, {"id": 4, "file_name": "a.png"}]
    objects = [{"id": n, "image_id": n, "category_id": 17, "bbox": [n, 0, 9, 9]} for n in (3, 4)]
    truth = read_ground_truth(
        annotation_file(tmp_path, images=entries, annotations=objects), [record("/d/a.png")], NAMES
    )
    assert truth.image_ids == {"/d/a.png": 3}
    assert truth.boxes[:, [0, 2]].tolist() == [[0, 3], [0, 4]]


def test_two_images_that_the_file_cannot_tell_apart_are_named(tmp_path: Path) -> None:
    records = [record("/data/left/b.png"), record("/data/right/b.png")]
    with pytest.raises(
        InputError, match=r"own\.json: its image 'b\.png' is /data/left/b\.png as well as /data/right/b"
    ):
        read_ground_truth(annotation_file(tmp_path), records, NAMES)


def test_without_detections_the_file_is_an_empty_list(tmp_path: Path) -> None:
    CocoResults(ground_truth_from_labels([record("a.png")], NAMES)).write(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == []


def test_boxes_follow_the_size_that_the_file_states(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "b.png", "width": 400, "height": 200}]
    truth = read_ground_truth(annotation_file(tmp_path, images=images), [record("/data/b.png")], NAMES)
    collected = CocoResults(truth)
    collected.on_image(result("/data/b.png", [10, 20, 30, 40, 0.5, 0]))
    collected.write(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[0]["bbox"] == [20, 40, 40, 40]


def test_classes_and_images_that_the_file_lacks_are_named_and_not_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        truth = read_ground_truth(annotation_file(tmp_path), [record("/d/b.png"), record("/d/c.png")], ("cow", "dog"))
    assert "no category 'cow'" in caplog.text and "lacks 1 image, such as c.png" in caplog.text
    collected = CocoResults(truth)
    collected.on_image(result("/d/b.png", [0, 0, 5, 5, 0.9, 0], [0, 0, 5, 5, 0.8, 1]))
    assert collected.write(tmp_path / "out.json") == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": [{"id": 1, "file_name": "z.png"}]}, "no image of 1 is among its own, such as b.png"),
        ({"categories": [{"id": 1, "name": "Katze"}]}, "none of its categories is called like a class"),
        ({"annotations": None}, "expected a COCO annotation file"),
        ({"annotations": [{"image_id": 70, "category_id": 17, "bbox": [1, 2]}]}, "annotations.0.: .*2 numbers instead"),
        ({"annotations": ["box"]}, "annotations.0.: image_id, category_id and a bbox"),
        ({"images": [{"id": 1}]}, "images.0.: an id and a file_name expected"),
    ],
)
def test_a_file_of_another_set_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_ground_truth(annotation_file(tmp_path, **changed), [record("/data/b.png")], NAMES)


def test_a_file_made_from_labels_numbers_images_by_their_names_if_it_can() -> None:
    boxes = [[1, 0.5, 0.5, 0.2, 0.4]]
    truth = ground_truth_from_labels([record("d/000012.png", boxes), record("d/7.png")], NAMES)
    assert truth.image_ids == {"d/000012.png": 12, "d/7.png": 7}
    assert truth.content is not None
    assert truth.content["annotations"] == [
        {"id": 1, "image_id": 12, "category_id": 1, "bbox": [80.0, 30.0, 40.0, 40.0], "area": 1600.0, "iscrowd": 0}
    ]
    named = ground_truth_from_labels([record("a_1.png"), record("b.png")], NAMES)
    assert list(named.image_ids.values()) == [1, 2]
    twins = ground_truth_from_labels([record("x/7.png"), record("y/07.png")], NAMES)
    assert list(twins.image_ids.values()) == [1, 2]


def test_the_file_lies_where_coco_has_it_or_is_the_split_itself(tmp_path: Path) -> None:
    for folder in ("images/val2017", "images/test", "annotations"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("instances_val2017.json", "own.json"):
        (tmp_path / "annotations" / name).write_text(
            json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}), encoding="utf-8"
        )
    yaml = tmp_path / "data.yaml"
    yaml.write_text("train: annotations/own.json\nval: images/val2017\ntest: images/test\nnames: [a]\n")
    spec = DatasetSpec.load(yaml)
    assert find_annotations(spec, "val") == (tmp_path / "annotations/instances_val2017.json").resolve()
    assert find_annotations(spec, "train") == (tmp_path / "annotations/own.json").resolve()
    assert find_annotations(spec, "test") is None
