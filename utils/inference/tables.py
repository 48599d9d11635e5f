"""All detections of a run in one table: ``.csv`` with a line per detection, ``.json`` with an entry per image."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from utils.core.boxes import xyxy2xywhn
from utils.core.names import csv_cell
from utils.datasets.sources.base import Frame
from utils.inference.predictor import Detections

COLUMNS = (
    "file", "frame", "class", "name", "confidence", "x1", "y1", "x2", "y2", "x_center", "y_center", "width", "height",
)  # fmt: skip


def rows_of(found: Detections) -> list[tuple[int, str, float, list[float], list[float]]]:
    """(class, name, confidence, x1 y1 x2 y2 in pixels, centre and size as fractions) of each detection, best first."""
    height, width = found.hw
    fractions = xyxy2xywhn(found.boxes[:, :4].double(), width, height).tolist()
    rows = []
    for (*box, conf, cls), box_n in zip(found.boxes.tolist(), fractions):
        pixels, shares = [round(value, 3) for value in box], [round(value, 6) for value in box_n]
        rows.append((int(cls), found.names[int(cls)], round(conf, 6), pixels, shares))
    return rows


class CsvTable:
    """A line per detection. ``frame`` is empty for images; pixels to 3, fractions to 6 digits.

    Names that a spreadsheet would compute, or a terminal obey, are made harmless.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an earlier run; if it is a link, what it leads to stays as it is
        self._stream = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._stream)
        self._writer.writerow(COLUMNS)

    def write(self, frame: Frame, found: Detections) -> None:
        number = frame.number if frame.clip else ""
        for cls, name, conf, pixels, fractions in rows_of(found):
            self._writer.writerow((csv_cell(frame.title), number, cls, csv_cell(name), conf, *pixels, *fractions))
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class JsonTable:
    """A list with an entry per image or frame, also of those where nothing was found.

    The file is whole after every entry, so that a run that was stopped leaves a readable one.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._stream = path.open("w", encoding="utf-8", newline="\n")
        self._stream.write("[\n]\n")
        self._stream.flush()
        self._end, self._first = 1, True  # where the next entry goes

    def write(self, frame: Frame, found: Detections) -> None:
        entry: dict[str, Any] = {"file": frame.title}
        if frame.clip:
            entry["frame"] = frame.number
        entry |= {"height": found.hw[0], "width": found.hw[1], "detections": []}
        for cls, name, conf, pixels, fractions in rows_of(found):
            entry["detections"].append(
                {"class": cls, "name": name, "confidence": conf, "box_xyxy": pixels, "box_xywhn": fractions}
            )
        text = f"{'' if self._first else ','}\n{json.dumps(entry, ensure_ascii=True)}"  # ASCII: characters are bytes
        self._stream.seek(self._end)
        self._stream.write(f"{text}\n]\n")
        self._stream.flush()
        self._end, self._first = self._end + len(text), False

    def close(self) -> None:
        self._stream.close()
