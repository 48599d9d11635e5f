"""The tables of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import torch

from utils.datasets.sources import Clip, Frame
from utils.inference.predictor import ImageDetections
from utils.inference.tables import DETECTION_COLUMNS, CsvTable, JsonTable

IMAGE = np.zeros((100, 200, 3), np.uint8)
STILL = Frame(IMAGE, Path("a/猫, 1.png"), Path("猫, 1.png"))
FRAME = Frame(IMAGE, Path("b.mp4"), Path("b.mp4"), Clip("b.mp4"), 7)
FOUND = ImageDetections(
    torch.tensor([[20.0, 10, 60, 50, 0.9, 1], [0, 0, 200, 100, 0.25, 0]]), ["ant", "b,ee"], (100, 200)
)
NOTHING = ImageDetections(torch.zeros(0, 6), ["ant", "b,ee"], (100, 200))


def test_the_csv_has_a_line_per_detection(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "a.csv")
    for frame, found in ((STILL, FOUND), (FRAME, NOTHING), (FRAME, FOUND)):
        table.write(frame, found)
    table.close()
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    assert tuple(head) == DETECTION_COLUMNS
    name = str(Path("a/猫, 1.png"))
    assert rows[0] == [
        name, "", "1", "b,ee", "0.9", "20.0", "10.0", "60.0", "50.0", "0.2", "0.3", "0.2", "0.4"
    ]  # fmt: skip
    assert [row[:3] for row in rows] == [[name, "", "1"], [name, "", "0"], ["b.mp4", "7", "1"], ["b.mp4", "7", "0"]]


def test_the_json_has_an_entry_per_image_and_is_whole_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    table, seen = JsonTable(path), []
    seen.append(json.loads(path.read_bytes()))
    for frame, found in ((STILL, FOUND), (FRAME, NOTHING), (FRAME, FOUND)):
        table.write(frame, found)
        seen.append(json.loads(path.read_bytes()))
    table.close()
    assert [len(entries) for entries in seen] == [0, 1, 2, 3]
    image, empty, frame = json.loads(path.read_bytes())
    assert image["file"] == str(Path("a/猫, 1.png")) and "frame" not in image
    assert (image["height"], image["width"]) == (100, 200)
    assert image["detections"][0] == {
        "class": 1, "name": "b,ee", "confidence": 0.9, "box_xyxy": [20, 10, 60, 50], "box_xywhn": [0.2, 0.3, 0.2, 0.4],
    }  # fmt: skip
    assert (empty["frame"], empty["detections"]) == (7, [])
    assert len(frame["detections"]) == 2


def test_the_summary_counts_in_words_and_only_latin_names_take_an_s() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9, 0.9, kind] for kind in (1, 0, 1, 0, 2)])
    assert ImageDetections(boxes, ["ant", "红细胞", "bee"], (10, 10)).summary() == "2 ants, 2 红细胞, 1 bee"
