"""What a scan of labels gives: records, findings, counts; and their flat form for the cache."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

# What can be wrong with a row, a label file or an image.
BAD_ROW = "bad row"
CLIPPED = "clipped row"
REPEATED = "repeated row"
FOREIGN = "unknown class"
BAD_IMAGE = "unusable image"
BAD_LABELS = "unreadable labels"
KEYPOINTS = "key points"
LOSSES = (BAD_ROW, BAD_IMAGE, BAD_LABELS)  # a row or an image that will not be used


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or odd, about a data set.

    ``line`` counts from 1, 0 means the file as a whole; ``value`` is what stands there, ``problem`` says what is wrong
    with it and ``action`` what was done about it.
    """

    kind: str
    file: str
    line: int = 0
    value: str = ""
    problem: str = ""
    action: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        said = ": ".join(text for text in (place, self.value, self.problem) if text)
        return f"{said}; {self.action}" if self.action else said


@dataclass(frozen=True)
class LabelFile:
    """The usable rows of one image and what was wrong with the others.

    ``boxes`` [n, 5] float32 class, cx, cy, w, h. ``segments`` is empty, or one [m, 2] polygon per box ([0, 2] for a
    row given as a box). ``foreign`` holds (line, class) of rows whose class the data set does not have.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    segments: tuple[np.ndarray, ...] = ()
    findings: tuple[Finding, ...] = ()
    foreign: tuple[tuple[int, int], ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """One line of text per row that was dropped as unusable."""
        return tuple(str(finding) for finding in self.findings if finding.kind == BAD_ROW)

    @property
    def clipped(self) -> int:
        """Rows with a coordinate a little outside the image."""
        return sum(finding.kind == CLIPPED for finding in self.findings)

    @property
    def duplicates(self) -> int:
        """Rows that repeat another one."""
        return sum(finding.kind == REPEATED for finding in self.findings)


@dataclass(frozen=True)
class LabelRecord:
    """One usable image: size (height, width) as displayed, boxes and segments as in ``LabelFile``."""

    image: Path
    label: Path | None
    hw: tuple[int, int]
    boxes: np.ndarray
    segments: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class ScanReport:
    """Counts over images (``labelled`` has rows, ``missing`` no file, ``empty`` no row) and all findings."""

    labelled: int = 0
    missing: int = 0
    empty: int = 0
    corrupt: int = 0
    findings: tuple[Finding, ...] = ()

    @cached_property
    def counts(self) -> Counter[str]:
        """Number of findings of each kind."""
        return Counter(finding.kind for finding in self.findings)

    @property
    def messages(self) -> tuple[str, ...]:
        """One line of text per row or image that will not be used."""
        return tuple(str(finding) for finding in self.findings if finding.kind in LOSSES)

    @property
    def dropped_rows(self) -> int:
        """Rows that could not be used."""
        return self.counts[BAD_ROW]

    @property
    def clipped_rows(self) -> int:
        """Rows with a coordinate a little outside the image."""
        return self.counts[CLIPPED]

    @property
    def duplicate_rows(self) -> int:
        """Rows that repeat another one of their image."""
        return self.counts[REPEATED]


@dataclass(frozen=True)
class LabelSet:
    """All usable images in the order given, and the report over all of them."""

    records: list[LabelRecord]
    report: ScanReport


# The cached form ------------------------------------------------------------------------------------------------------


def pack(images: Sequence[Path], labels: LabelSet, root: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Flatten to arrays (per image its position, size, number of rows; then all rows, all points) and plain values.

    Paths below the folder ``root`` are stored relative to it, so that a data set can be moved with its cache.
    """
    position = {image: i for i, image in enumerate(images)}
    records = labels.records
    outlined = any(record.segments for record in records)
    segments = [s for r in records for s in r.segments or [_NO_POINTS] * len(r.boxes)] if outlined else []
    arrays = {
        "position": np.array([position[r.image] for r in records], np.int64),
        "hw": np.array([r.hw for r in records], np.int64).reshape(-1, 2),
        "rows": np.array([-1 if r.label is None else len(r.boxes) for r in records], np.int64),
        "boxes": np.concatenate([np.zeros((0, 5), np.float32), *(r.boxes for r in records)]),
        "segment_points": np.array([len(s) for s in segments], np.int64),
        "points": np.concatenate([_NO_POINTS, *segments]),
    }
    report = labels.report
    counts = {name: getattr(report, name) for name in ("labelled", "missing", "empty", "corrupt")}
    findings = [
        [f.kind, _below(root, f.file), f.line, f.value, _below(root, f.problem), f.action] for f in report.findings
    ]
    return arrays, {**counts, "findings": findings}


_NO_POINTS = np.zeros((0, 2), np.float32)
_ROOT_MARK = "\0"


def _below(root: str, text: str) -> str:
    return text.replace(root + os.sep, _ROOT_MARK) if root else text


def unpack(
    images: Sequence[Path], labels: Sequence[Path], arrays: dict[str, np.ndarray], content: dict[str, Any], root: str
) -> LabelSet:
    """Rebuild what ``pack`` flattened; ``labels`` are the label files of ``images``.

    Raises KeyError, IndexError, TypeError or ValueError when the parts do not fit together.
    """
    counts = arrays["rows"].tolist()
    boxes = arrays["boxes"]
    total = sum(max(count, 0) for count in counts)
    lengths = arrays["segment_points"]
    outlined = len(lengths) > 0
    if boxes.shape != (total, 5) or not len(counts) == len(arrays["position"]) == len(arrays["hw"]):
        raise ValueError(f"{boxes.shape} boxes for {total} rows")
    if outlined and (len(lengths) != total or len(arrays["points"]) != lengths.sum()):
        raise ValueError("polygons do not fit the rows")
    ends = [0, *lengths.cumsum().tolist()]
    points = arrays["points"].reshape(-1, 2)
    records = []
    first = 0
    for place, (height, width), count in zip(arrays["position"].tolist(), arrays["hw"].tolist(), counts):
        last = first + max(count, 0)
        segments: tuple[np.ndarray, ...] = ()
        if outlined and ends[first] < ends[last]:
            segments = tuple(points[ends[i] : ends[i + 1]] for i in range(first, last))
        label = None if count < 0 else labels[place]
        records.append(LabelRecord(images[place], label, (height, width), boxes[first:last], segments))
        first = last
    findings = tuple(
        Finding(kind, _above(root, file), line, value, _above(root, problem), action)
        for kind, file, line, value, problem, action in content["findings"]
    )
    known = {name: int(content[name]) for name in ("labelled", "missing", "empty", "corrupt")}
    return LabelSet(records, ScanReport(**known, findings=findings))


def _above(root: str, text: str) -> str:
    return text.replace(_ROOT_MARK, root + os.sep)
