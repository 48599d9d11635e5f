"""All detections of a run in one table: ``.csv`` with a line per detection, ``.json`` with an entry per image."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from utils.core.boxes import xyxy2xywhn
from utils.core.names import csv_cell
from utils.datasets.sources.base import Frame
from utils.inference.predictor import ImageDetections

DETECTION_COLUMNS = (
    *("file", "frame", "class", "name", "confidence"),
    *("x1", "y1", "x2", "y2"),
    *("x_center", "y_center", "width", "height"),
)


def detection_rows(detections: ImageDetections) -> list[tuple[int, str, float, list[float], list[float]]]:
    """Return (class, name, confidence, xyxy in pixels, xywh in fractions of the image) of each detection."""
    height, width = detections.hw
    fractions = xyxy2xywhn(detections.boxes[:, :4].double(), width, height).tolist()
    rows = []
    for (*box, conf, cls), box_n in zip(detections.boxes.tolist(), fractions):
        xyxy, xywhn = [round(value, 3) for value in box], [round(value, 6) for value in box_n]
        rows.append((int(cls), detections.names[int(cls)], round(conf, 6), xyxy, xywhn))
    return rows


class CsvTable:
    """A line per detection. ``frame`` is empty for images; pixels to 3, fractions to 6 digits.

    Names that a spreadsheet would compute, or a terminal obey, are made harmless.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an earlier run; if it is a link, its target is not changed
        self._stream = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._stream)
        self._writer.writerow(DETECTION_COLUMNS)

    def write(self, frame: Frame, detections: ImageDetections) -> None:
        """Add a line for each detection."""
        number = frame.number if frame.clip else ""
        for cls, name, conf, xyxy, xywhn in detection_rows(detections):
            self._writer.writerow((csv_cell(frame.title), number, cls, csv_cell(name), conf, *xyxy, *xywhn))
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class JsonTable:
    """A list with an entry per image or frame, also for those without detections.

    The file is complete after every entry, so that a run that was stopped leaves a readable one.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._stream = path.open("w", encoding="utf-8", newline="\n")
        self._stream.write("[\n]\n")
        self._stream.flush()
        self._end, self._first = 1, True  # _end: where the next entry begins

    def write(self, frame: Frame, detections: ImageDetections) -> None:
        """Add the entry of one image or frame."""
        entry: dict[str, Any] = {"file": frame.title}
        if frame.clip:
            entry["frame"] = frame.number
        entry |= {"height": detections.hw[0], "width": detections.hw[1], "detections": []}
        for cls, name, conf, xyxy, xywhn in detection_rows(detections):
            entry["detections"].append(
                {"class": cls, "name": name, "confidence": conf, "box_xyxy": xyxy, "box_xywhn": xywhn}
            )
        text = f"{'' if self._first else ','}\n{json.dumps(entry, ensure_ascii=True)}"  # ASCII: characters are bytes
        self._stream.seek(self._end)
        self._stream.write(f"{text}\n]\n")
        self._stream.flush()
        self._end, self._first = self._end + len(text), False

    def close(self) -> None:
        self._stream.close()
