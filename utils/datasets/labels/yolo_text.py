"""One label file: its rows, and what is wrong with the others.

Policy, row by row (the image and its other rows stay usable):

* a row is ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3 ...`` (three points or more), all but the class in 0..1;
* a coordinate at most ``TOLERANCE`` outside 0..1 is clipped, further outside the row is dropped;
* no area, a number that is not finite, a wrong count of columns, a class that is not whole: the row is dropped;
* a repeated row is dropped;
* a class that the data set does not have stops the run, after all files have been read.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from utils.core.boxes import segments2boxes, xyxy2xywhn
from utils.core.files import label_name, label_path_for, open_regular
from utils.core.names import excerpt
from utils.datasets.labels.records import BAD_ROW, CLIPPED, KEYPOINTS, REPEATED, Finding, LabelFile

TOLERANCE = 0.01
MAX_BYTES = 1 << 26  # of a label file; a longer one is something else
MAX_CLASS = 1 << 24  # float32 has no larger whole numbers without gaps


class RowReader(Protocol):
    """Where the rows of images come from: label files beside them, or another kind of annotation.

    ``settings`` names everything beside the files that the rows depend on.
    """

    settings: str

    def file_for(self, image: Path) -> Path:
        """The annotation file of an image, whether it exists or not."""
        ...

    def read(self, image: Path, hw: tuple[int, int], nc: int | None) -> LabelFile | None:
        """The rows of an image of size ``hw``; None when it has no annotation. May raise OSError."""
        ...


def _listing(folder: Path) -> dict[str, Path]:
    """Name -> path of what a folder holds; nothing if it cannot be listed."""
    try:
        return {path.name: path for path in folder.iterdir()}
    except OSError:
        return {}


class TextRows:
    """YOLO label files: one ``.txt`` an image."""

    def __init__(self, keypoint_columns: int = 0) -> None:
        """``keypoint_columns``: how many numbers of key points follow a box in a row; they are not used."""
        self.settings = f"keypoints {keypoint_columns}" if keypoint_columns else ""
        self._keypoint_columns = keypoint_columns
        self._listed: dict[str, dict[str, Path]] = {}

    def file_for(self, image: Path) -> Path:
        """The label file of an image: one found by listing its folder, which gives paths several times faster."""
        folder, name = os.path.split(image)
        if folder not in self._listed:
            self._listed[folder] = _listing(label_path_for(image).parent)
        return self._listed[folder].get(label_name(name)) or label_path_for(image)

    def read(self, image: Path, hw: tuple[int, int], nc: int | None) -> LabelFile | None:
        """The rows of its label file; None when there is no such file."""
        try:
            return read_label_file(self.file_for(image), hw, nc, self._keypoint_columns)
        except FileNotFoundError:
            return None


def _read_text(path: Path) -> str:
    """The text of a label file; UTF-16 as some Windows tools write it is understood, other bytes become marks."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise OSError(f"longer than {MAX_BYTES >> 20} MiB, so it is no label file")
        content = file.read()
    wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return content.decode("utf-16" if wide else "utf-8-sig", "replace")


def _plain_boxes(rows: list[list[str]], nc: int | None) -> np.ndarray | None:
    """The boxes [n, 5] of a file without any peculiarity, else None: most files are read here, all at once."""
    if any(len(words) != 5 for words in rows):
        return None
    try:
        table = np.array([[float(word) for word in words] for words in rows])
    except ValueError:
        return None
    if not rows:
        return np.zeros((0, 5), np.float32)
    classes, numbers = table[:, 0], table[:, 1:]
    top = MAX_CLASS if nc is None else nc
    # Written so that NaN fails each comparison.
    if not (numbers.min() >= 0 and numbers.max() <= 1 and classes.min() >= 0 and classes.max() < top):
        return None
    if numbers[:, 2:].min() <= 0 or (classes != np.floor(classes)).any():
        return None
    if len(rows) > 1 and len({row.tobytes() for row in table}) < len(rows):
        return None
    return table.astype(np.float32)


def _number(word: str) -> float:
    try:
        if "_" not in word:  # Python would read 1_0 as ten
            return float(word)
    except ValueError:
        pass
    hint = "; columns are parted by spaces, decimals by points" if "," in word or ";" in word else ""
    raise ValueError(f"'{excerpt(word, 20)}' is not a number{hint}")


def _parse_row(words: list[str], hw: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """Return class and coordinates of a row, and whether any was clipped; ValueError says what is wrong with it."""
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        if len(words) == 1:
            _number(words[0])  # a row with other separators is explained better by this
        hint = ""
        if len(words) == 6:
            hint = (
                "; the sixth looks like the confidence that detect.py --save-txt --save-conf writes: write the labels "
                "without --save-conf, or keep columns 1 to 5 only (cut -d' ' -f1-5)"
            )
        elif len(words) > 6 and (len(words) - 5) % 3 == 0:
            points = (len(words) - 5) // 3
            hint = f"; if these are key points, say kpt_shape: [{points}, 3] in the data yaml, and the boxes are used"
        raise ValueError(f"{len(words)} columns instead of 5 (class cx cy w h) or a class and 3 or more points{hint}")
    row = np.array([_number(word) for word in words])
    if not np.isfinite(row).all():
        raise ValueError("not finite")
    if not row[0].is_integer():
        raise ValueError(f"class {excerpt(words[0], 20)} is not a whole number")
    if abs(row[0]) >= MAX_CLASS:
        raise ValueError(f"class {excerpt(words[0], 20)} is no class number")
    if len(words) == 5 and row[3:].min() <= 0:
        raise ValueError("width and height must be above 0")
    inside = row[1:].clip(0, 1)
    excess = np.abs(row[1:] - inside)
    if excess.max() > TOLERANCE + 1e-9:
        worst = excerpt(words[1 + int(excess.argmax())], 20)
        raise ValueError(f"{worst} is outside 0..1; pixels are divided by width {hw[1]} and height {hw[0]}")
    row[1:] = inside
    if len(words) > 5 and np.ptp(inside.reshape(-1, 2), axis=0).min() <= 0:
        raise ValueError("polygon without area")
    return row, bool(excess.any())


def read_label_file(path: Path, hw: tuple[int, int], nc: int | None, keypoint_columns: int = 0) -> LabelFile:
    """Read one label file by the policy of this module.

    ``hw`` is the size of the image, for messages. ``nc`` None accepts every class from 0 on. Of rows with
    ``keypoint_columns`` numbers behind the box only the box is used. Raises OSError when the file cannot be read.
    """
    text = _read_text(path)
    lines, posed = _words(text, keypoint_columns)
    plain = None if "_" in text else _plain_boxes([words for words in lines if words], nc)
    labels = _read_rows(path, lines, hw, nc)[0] if plain is None else LabelFile(plain)
    if not posed:
        return labels
    finding = Finding(KEYPOINTS, str(path), posed[0], f"{len(posed)} rows", "", "boxes used")
    return replace(labels, findings=(finding, *labels.findings))


def _words(text: str, keypoint_columns: int) -> tuple[list[list[str]], list[int]]:
    """The words of each line, without key points, and the numbers of the lines that had some."""
    lines = [line.split() for line in text.splitlines()]
    posed = [n for n, words in enumerate(lines, 1) if len(words) == 5 + keypoint_columns] if keypoint_columns else []
    for number in posed:
        del lines[number - 1][5:]
    return lines, posed


def row_lines(path: Path, hw: tuple[int, int], nc: int | None, keypoint_columns: int = 0) -> list[int]:
    """The line of each row that ``read_label_file`` returns, in its order. Raises OSError as it does."""
    return _read_rows(path, _words(_read_text(path), keypoint_columns)[0], hw, nc)[1]


def _read_rows(path: Path, lines: list[list[str]], hw: tuple[int, int], nc: int | None) -> tuple[LabelFile, list[int]]:
    """The words of each line, one by one; also the lines of the usable ones."""
    rows: list[np.ndarray] = []
    seen: dict[bytes, int] = {}
    findings: list[Finding] = []
    foreign: list[tuple[int, int]] = []
    for number, words in enumerate(lines, 1):
        if not words:
            continue

        def note(kind: str, problem: str, action: str, at: int = number, words: list[str] = words) -> None:
            findings.append(Finding(kind, str(path), at, excerpt(" ".join(words[:99]), 60), problem, action))

        try:
            row, was_clipped = _parse_row(words, hw)
        except ValueError as error:
            note(BAD_ROW, str(error), "row dropped")
            continue
        if row[0] < 0 or (nc is not None and row[0] >= nc):
            foreign.append((number, int(row[0])))
        elif row.tobytes() in seen:
            note(REPEATED, f"the same as line {seen[row.tobytes()]}", "counted once")
        else:
            seen[row.tobytes()] = number
            rows.append(row)
            if was_clipped:
                note(CLIPPED, f"less than {TOLERANCE} outside the image", "clipped to its border")
    boxes, segments = _boxes_and_segments(rows)
    return LabelFile(boxes, segments, tuple(findings), tuple(foreign)), list(seen.values())


def _boxes_and_segments(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Part rows of boxes and polygons; a polygon's box is its bounds."""
    boxes = np.zeros((len(rows), 5), np.float32)
    segments = [np.zeros((0, 2), np.float32)] * len(rows)
    for i, row in enumerate(rows):
        boxes[i, 0] = row[0]
        if len(row) > 5:
            segments[i] = row[1:].reshape(-1, 2).astype(np.float32)
            boxes[i, 1:] = segments2boxes([segments[i]])[0]
        else:
            boxes[i, 1:] = row[1:]
    return boxes, tuple(segments) if any(len(segment) for segment in segments) else ()


def yolo_detection_text(boxes: Tensor, hw: tuple[int, int], with_conf: bool) -> str:
    """Return detections as the text of a label file: class, cx, cy, w, h as fractions of the image, per line.

    Args:
        boxes: [k, 6] x1 y1 x2 y2 in pixels, confidence, class.
        hw: height and width of the image.
        with_conf: add the confidence to each line.
    """
    height, width = hw
    lines = []
    for xywh, (conf, cls) in zip(xyxy2xywhn(boxes[:, :4], width, height).tolist(), boxes[:, 4:].tolist()):
        numbers = [*xywh, conf] if with_conf else xywh
        lines.append(" ".join([str(int(cls)), *(f"{v:.6g}" for v in numbers)]) + "\n")
    return "".join(lines)
