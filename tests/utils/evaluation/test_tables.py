"""Tables, page of the worst images, batches and the study: the files around an evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from utils.evaluation import ImageResult, MetricsCollector
from utils.evaluation.batches import cut_by_shape
from utils.evaluation.report import log_metrics
from utils.evaluation.results import IOU_THRESHOLDS
from utils.evaluation.study import StudyRow, save_study, short_names
from utils.evaluation.tables import class_rows, mean_row, write_class_table, write_metrics_json
from utils.evaluation.worst import WorstImages
from utils.metrics import ConfusionMatrix, match_predictions
from utils.metrics.coco import COCO_METRICS, CocoMetrics
from utils.plots.names import columns

NAMES = ("cat", "dog", "bird")


def image(path: str, labels: list[list[float]], detections: list[list[float]]) -> ImageResult:
    """Labels are (class, left), detections (class, left, confidence); all boxes are 10 px wide and high."""
    known = torch.tensor([[c, x, 0, x + 10, 10] for c, x in labels]).reshape(-1, 5).float()
    found = torch.tensor([[x, 0, x + 10, 10, conf, c] for c, x, conf in detections]).reshape(-1, 6).float()
    return ImageResult(path, (20, 80), found, known, match_predictions(found, known, IOU_THRESHOLDS).numpy())


def collector_of(*images: ImageResult) -> MetricsCollector:
    collector = MetricsCollector(ConfusionMatrix(len(NAMES)))
    for each in images:
        collector.add(each)
    return collector


# Four images with a label each, of which one is found; a false bird, of which there are no labels.
FOUR = (
    image("a.png", [[0, 0]], [[0, 0, 0.9], [2, 40, 0.6]]),
    image("b.png", [[0, 0]], []),
    image("c.png", [[1, 0]], []),
    image("d.png", [[0, 0]], []),
)


def test_labels_of_images_without_detections_count() -> None:
    result = collector_of(*FOUR).result(3, {})
    assert (result.images, result.labels, result.labels_per_class.tolist()) == (4, 4, [3, 1, 0])
    assert class_rows(result, NAMES)[0].recall == pytest.approx(1 / 3)
    one_class = collector_of(*[image(p.path, [[0, 0]], [[0, 0, 0.9]] * (p.path == "a.png")) for p in FOUR])
    assert one_class.result(1, {}).recall == pytest.approx(0.25)


def test_an_absent_class_has_no_figures_and_says_so(tmp_path: Path) -> None:
    result = collector_of(*FOUR).result(3, {"NMS": 1.23456})
    cat, dog, bird = class_rows(result, NAMES)
    assert bird.absent and bird.ap50 is None and not dog.absent and dog.ap50 == 0
    assert cat.best_f1 == pytest.approx(0.5) and mean_row(result).labels == 4
    write_class_table(tmp_path / "metrics.csv", result, NAMES)
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["all", *NAMES]
    assert (rows["bird"]["ap50"], rows["bird"]["absent"]) == ("", "absent")
    assert (rows["cat"]["true_positives"], rows["cat"]["absent"]) == ("1", "")
    assert rows["all"]["precision"] and rows["all"]["recall"] == "0.166667"


def test_the_json_has_everything_and_is_valid_without_labels_too(tmp_path: Path) -> None:
    coco = CocoMetrics((0.5,) * 11 + (float("nan"),), "a tool")
    for name, images in (("full", FOUR), ("empty", [image("a.png", [], [])])):
        write_metrics_json(
            tmp_path / name, collector_of(*images).result(3, {"NMS": 1.2345678}), NAMES, {"iou": 0.6}, coco
        )
    full, empty = (
        json.loads((tmp_path / n).read_text(encoding="utf-8"), parse_constant=pytest.fail) for n in ("full", "empty")
    )
    assert full["coco"] == {"tool": "a tool", **dict.fromkeys(COCO_METRICS, 0.5), "ARl": None}
    assert full["ms_per_image"] == {"NMS": 1.235} and full["settings"] == {"iou": 0.6}
    assert np.array(full["confusion_matrix"]["counts"]).sum() == 5  # four labels and the false bird
    assert empty["all"]["ap50"] is None and len(empty["classes"]) == 3


def test_the_text_table_has_a_row_per_class(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        log_metrics(collector_of(*FOUR).result(3, {}), NAMES)
    header, everything, cat, _, bird = caplog.messages
    assert header.split()[-3:] == ["best", "F1", "at"]
    assert everything.split()[:3] == ["all", "4", "4"] and cat.split()[:3] == ["cat", "3", "3"]
    assert bird.split()[-2:] == ["-", "absent"]


def test_the_text_table_is_straight_with_long_and_with_wide_names(caplog: pytest.LogCaptureFixture) -> None:
    names = ("cat", "红细胞", "a bird that nobody has ever seen")
    with caplog.at_level("INFO"):
        log_metrics(collector_of(*FOUR).result(3, {}), names)
    rows = caplog.messages[2:]
    assert [columns(row.removesuffix("  absent")) for row in rows] == [columns(caplog.messages[0])] * 3
    assert rows[1].startswith(" " * 14 + "红细胞 ") and rows[2].startswith("a bird that n…r seen ")


def test_tallies_of_several_processes_join_to_the_figures_of_one() -> None:
    whole, parts = collector_of(*FOUR), (collector_of(), collector_of())
    for number, each in enumerate(FOUR):
        parts[number % 2].add(each, (number // 2, number % 2))
    for collector in (whole, *parts):  # every process knows the losses of whole batches
        collector.losses, collector.batches = torch.tensor([2.0, 4.0, 6.0]), 2
    joined = MetricsCollector.merge(parts)
    assert [scored.true.tolist() for scored in joined.images] == [scored.true.tolist() for scored in whole.images]
    a, b = whole.result(3, {}), joined.result(3, {})
    assert (a.precision, a.recall, a.map, a.losses) == (b.precision, b.recall, b.map, b.losses) and b.losses[0] == 1
    assert a.confusion.matrix.tolist() == b.confusion.matrix.tolist()


def test_images_are_listed_by_their_errors_and_the_worst_are_drawn(tmp_path: Path) -> None:
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 80, 3), 128, np.uint8))
    worst = WorstImages(NAMES, keep=2)
    worst.on_image(image(str(tmp_path / "a.png"), [[0, 0]], [[0, 0, 0.9], [1, 40, 0.2]]))  # 0.2 is not sure
    worst.on_image(image(str(tmp_path / "b.png"), [[0, 0], [1, 30]], [[0, 1, 0.9], [0, 0, 0.8], [1, 60, 0.6]]))
    worst.on_image(image(str(tmp_path / "c.png"), [[0, 0]], []))
    worst.save(tmp_path)
    with (tmp_path / "images.csv").open(encoding="utf-8") as stream:
        rows = [[Path(row[0]).name, *row[1:]] for row in list(csv.reader(stream))[1:]]
    assert rows == [["b.png", "1", "1", "2"], ["c.png", "0", "1", "0"], ["a.png", "1", "0", "0"]]
    page = cv2.imread(str(tmp_path / "worst.jpg"))
    assert page.shape[1] > 2 * 500 and page.std() > 10


def test_without_an_error_there_is_no_page(tmp_path: Path) -> None:
    worst = WorstImages(NAMES)
    worst.on_image(image("a.png", [[0, 0]], [[0, 0, 0.9]]))
    worst.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["images.csv"]


@pytest.mark.parametrize(
    ("count", "batch_size", "lengths"),
    [(70, 32, [32, 32, 6]), (70, 7, [7] * 9 + [1, 6]), (70, 100, [64, 6]), (70, 40, [40, 24, 6]), (0, 8, [])],
)
def test_batches_have_one_shape_whatever_their_size(count: int, batch_size: int, lengths: list[int]) -> None:
    shapes = np.array([[320, 640], [320, 640], [640, 320]])
    batches = cut_by_shape(shapes, count, batch_size)
    assert [len(batch) for batch in batches] == lengths
    assert [position for batch in batches for position in batch] == list(range(count))
    assert all(len({tuple(shapes[p // 32]) for p in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["runs/exp/weights/best.pt"], ["best"]),
        (["a/x.pt", "b/y.pt"], ["x", "y"]),
        (["exp/weights/best.pt", "exp2/weights/best.pt"], ["exp/weights/best", "exp2/weights/best"]),
    ],
)
def test_models_are_called_by_what_tells_them_apart(files: list[str], names: list[str]) -> None:
    assert short_names([Path(file) for file in files]) == names


def test_a_study_has_a_table_a_chart_and_the_files_of_v61(tmp_path: Path) -> None:
    result = collector_of(*FOUR).result(3, {"loading": 9.0, "pre-process": 1.0, "inference": 20.0, "NMS": 3.0})
    rows = [
        StudyRow(name, dynamic, 100, size, result)
        for name, dynamic in (("s", False), ("x/d", True))
        for size in (64, 96)
    ]
    save_study(rows, "mine", tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "study.csv", "study.png", "study_mine_s.txt", "study_mine_x_d.txt",
    ]  # fmt: skip
    assert np.loadtxt(tmp_path / "study_mine_s.txt").shape == (2, 10)
    with (tmp_path / "study.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [(row["model"], row["imgsz"]) for row in table] == [("s", "64"), ("s", "96"), ("x/d", "64"), ("x/d", "96")]
    assert table[0]["inference_ms"] == "20"
