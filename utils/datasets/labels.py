"""Read, check and report the label files of a data set.

Policy, row by row (the picture and its other rows stay usable):

* a row is ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3 ...`` (three points or more), all but the class in 0..1;
* a coordinate at most ``TOLERANCE`` outside 0..1 is clipped, further outside the row is dropped;
* no area, a number that is not finite, a wrong count of columns, a class that is not whole: the row is dropped;
* a repeated row is dropped;
* a class that the data set does not have stops the run, after all files have been read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from utils.boxes import segments2boxes
from utils.datasets.cache import fingerprint, load_cache, save_cache
from utils.errors import InputError
from utils.files import label_path_for
from utils.image import image_size, read_image

logger = logging.getLogger(__name__)

TOLERANCE = 0.01
SHOWN = 10  # messages of one kind that are printed; the others are counted
MIN_SIDE_PX = 10  # smaller pictures are left out, as in v6.1
FORMAT = "labels 1"  # part of the cache key: raise it when the policy changes


@dataclass(frozen=True)
class LabelFile:
    """The usable rows of one label file and what was wrong with the others.

    ``boxes`` [n, 5] float32 class, cx, cy, w, h. ``segments`` is empty, or one [m, 2] polygon per box ([0, 2] for a
    row given as a box). ``foreign`` holds (line, class) of rows whose class the data set does not have.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    segments: tuple[np.ndarray, ...] = ()
    messages: tuple[str, ...] = ()
    clipped: int = 0
    duplicates: int = 0
    foreign: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class LabelRecord:
    """One usable picture: size (height, width) as displayed, boxes and segments as in ``LabelFile``."""

    image: Path
    label: Path | None
    hw: tuple[int, int]
    boxes: np.ndarray
    segments: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class ScanReport:
    """Counts over pictures (``found`` has rows, ``missing`` no file, ``empty`` no row) and over label rows."""

    found: int = 0
    missing: int = 0
    empty: int = 0
    corrupt: int = 0
    dropped_rows: int = 0
    messages: tuple[str, ...] = ()
    clipped_rows: int = 0
    duplicate_rows: int = 0


@dataclass(frozen=True)
class LabelSet:
    """All usable pictures in the order given, and the report over all of them."""

    records: list[LabelRecord]
    report: ScanReport


@dataclass(frozen=True)
class _Scanned:
    """What one picture and its label file gave; ``record`` is None for a picture that cannot be read."""

    record: LabelRecord | None
    rows: LabelFile = LabelFile()
    reason: str = ""


# One label file -------------------------------------------------------------------------------------------------------


def _parse_row(words: list[str], hw: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """Return class and coordinates of a row, and whether any was clipped; ValueError says what is wrong with it."""
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise ValueError(f"{len(words)} columns instead of 5 (class cx cy w h) or a class and 3 or more points")
    numbers = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            raise ValueError(f"'{word[:20]}' is not a number") from None
    row = np.array(numbers)
    if not np.isfinite(row).all():
        raise ValueError("not finite")
    if not numbers[0].is_integer():
        raise ValueError(f"class {words[0]} is not a whole number")
    if len(words) == 5 and min(numbers[3:]) <= 0:
        raise ValueError("width and height must be above 0")
    inside = row[1:].clip(0, 1)
    excess = np.abs(row[1:] - inside)
    if excess.max() > TOLERANCE + 1e-9:
        worst = words[1 + int(excess.argmax())]
        raise ValueError(f"{worst} is outside 0..1; pixels are divided by width {hw[1]} and height {hw[0]}")
    row[1:] = inside
    if len(words) > 5 and np.ptp(inside.reshape(-1, 2), axis=0).min() <= 0:
        raise ValueError("polygon without area")
    return row, bool(excess.any())


def read_label_file(path: Path, hw: tuple[int, int], nc: int | None) -> LabelFile:
    """Read one label file by the policy of this module.

    ``hw`` is the size of the picture, for messages. ``nc`` None accepts every class from 0 on.
    """
    rows: list[np.ndarray] = []
    seen: set[bytes] = set()
    messages: list[str] = []
    foreign: list[tuple[int, int]] = []
    clipped = duplicates = 0
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row, was_clipped = _parse_row(words, hw)
        except ValueError as error:
            value = " ".join(words)
            messages.append(f"{path}:{number}: {value[:60]}{'...' * (len(value) > 60)}: {error}; row dropped")
            continue
        if row[0] < 0 or (nc is not None and row[0] >= nc):
            foreign.append((number, int(row[0])))
        elif row.tobytes() in seen:
            duplicates += 1
        else:
            seen.add(row.tobytes())
            rows.append(row)
            clipped += was_clipped
    boxes, segments = _boxes_and_segments(rows)
    return LabelFile(boxes, segments, tuple(messages), clipped, duplicates, tuple(foreign))


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


# One picture ----------------------------------------------------------------------------------------------------------


def _check_decodable(image: Path) -> None:
    """Raise for a picture that training could not decode, or only in part.

    JPEG and PNG are trusted when they end as they should; a file with another end, or of another kind, is decoded.
    """
    with image.open("rb") as file:
        start = file.read(4)
        file.seek(-min(12, file.seek(0, 2)), 2)
        end = file.read()
    if start[:2] == b"\xff\xd8":
        complete = end[-2:] == b"\xff\xd9"
    elif start == b"\x89PNG":
        complete = end[4:8] == b"IEND"
    else:
        read_image(image)
        return
    if not complete:
        with Image.open(image) as picture:
            picture.load()  # OpenCV would fill the missing part with grey and say nothing


def _scan_one(image: Path, nc: int | None) -> _Scanned:
    """Check one picture and read its labels."""
    try:
        hw = image_size(image)
        if min(hw) < MIN_SIDE_PX:
            raise ValueError(f"{hw[1]}x{hw[0]} pixels, at least {MIN_SIDE_PX} a side are needed")
        _check_decodable(image)
    except Exception as error:  # decoders fail in many ways, and one broken picture must not end the scan
        return _Scanned(None, reason=f"{image}: picture left out: {str(error).removeprefix(f'{image}: ')}")
    label = label_path_for(image)
    try:
        rows = read_label_file(label, hw, nc)
    except FileNotFoundError:
        return _Scanned(LabelRecord(image, None, hw, LabelFile().boxes))
    except OSError as error:
        return _Scanned(None, reason=f"{label}: labels cannot be read, picture left out: {error.strerror or error}")
    return _Scanned(LabelRecord(image, label, hw, rows.boxes, rows.segments), rows)


# The whole set --------------------------------------------------------------------------------------------------------


def scan_labels(
    images: Sequence[Path],
    nc: int,
    *,
    cache_path: Path | None = None,
    workers: int = 8,
    progress: bool = False,
    description: str = "labels",
    require_labels: bool = False,
    single_cls: bool = False,
) -> LabelSet:
    """Read and check the labels of ``images``, from the cache where nothing has changed; log one line of counts.

    ``single_cls`` turns every class into 0. Raises InputError when no picture is usable, when a class id is not below
    ``nc``, and, with ``require_labels``, when there is no usable label at all.
    """
    images = list(images)
    if not images:
        raise InputError(f"{description}: no pictures given")
    limit = None if single_cls else nc
    key = _key(images, limit) if cache_path else ""
    cached = load_cache(cache_path, key) if cache_path else None
    labels = restored = _unpack(images, *cached) if cached else None
    if labels is None:
        scanned = _scan_all(images, limit, workers, progress, description)
        _refuse_foreign_classes(scanned, nc, description)
        labels = LabelSet([s.record for s in scanned if s.record], _report(scanned))
        if cache_path and labels.records:
            save_cache(cache_path, key, *_pack(images, labels))
    _log_report(labels.report, description, restored is not None)
    _refuse_useless(images, labels.report, description, require_labels)
    if single_cls:
        for record in labels.records:
            record.boxes[:, 0] = 0
    return labels


def _scan_all(images: Sequence[Path], nc: int | None, workers: int, progress: bool, description: str) -> list[_Scanned]:
    """Scan every picture, in threads: most of the time goes to opening files."""

    def watched(results: Iterable[_Scanned]) -> list[_Scanned]:
        return list(tqdm(results, desc=description, total=len(images), disable=not progress, leave=False))

    if workers <= 1:
        return watched(map(_scan_one, images, repeat(nc)))
    with ThreadPoolExecutor(workers) as pool:
        return watched(pool.map(_scan_one, images, repeat(nc)))


def _report(scanned: Sequence[_Scanned]) -> ScanReport:
    records = [s.record for s in scanned if s.record]
    found = sum(len(record.boxes) > 0 for record in records)
    missing = sum(record.label is None for record in records)
    return ScanReport(
        found=found,
        missing=missing,
        empty=len(records) - found - missing,
        corrupt=len(scanned) - len(records),
        dropped_rows=sum(len(s.rows.messages) for s in scanned),
        messages=tuple(text for s in scanned for text in ((s.reason,) if s.reason else s.rows.messages)),
        clipped_rows=sum(s.rows.clipped for s in scanned),
        duplicate_rows=sum(s.rows.duplicates for s in scanned),
    )


def _refuse_foreign_classes(scanned: Sequence[_Scanned], nc: int, description: str) -> None:
    """Raise InputError that names the first rows whose class is not in 0..nc-1."""
    offenders = [(s.record.label, line, c) for s in scanned if s.record for line, c in s.rows.foreign]
    if not offenders:
        return
    files = len({label for label, _, _ in offenders})
    places = ", ".join(f"{label}:{line} (class {c})" for label, line, c in offenders[:SHOWN])
    more = f" and {len(offenders) - SHOWN} more" if len(offenders) > SHOWN else ""
    highest = max(c for _, _, c in offenders)
    cure = f"set nc in the data yaml to {highest + 1} or more, or " if highest >= nc else ""
    raise InputError(
        f"{description}: {len(offenders)} label rows in {files} files have a class outside 0..{nc - 1}: "
        f"{places}{more}; {cure}correct the rows"
    )


def _log_report(report: ScanReport, description: str, from_cache: bool) -> None:
    for message in report.messages[:SHOWN]:
        logger.warning("%s: %s", description, message)
    if len(report.messages) > SHOWN:
        logger.warning("%s: %d more messages of this kind", description, len(report.messages) - SHOWN)
    logger.info(
        "%s: %d pictures with labels, %d without a label file, %d with an empty one, %d unreadable; "
        "rows: %d dropped, %d repeated, %d clipped%s",
        description,
        report.found,
        report.missing,
        report.empty,
        report.corrupt,
        report.dropped_rows,
        report.duplicate_rows,
        report.clipped_rows,
        " (from the cache)" if from_cache else "",
    )


def _refuse_useless(images: Sequence[Path], report: ScanReport, description: str, require_labels: bool) -> None:
    """Raise InputError, or warn, when nothing can be learned or measured from the set."""
    if report.corrupt == len(images):
        raise InputError(f"{description}: none of the {len(images)} pictures is usable; {report.messages[0]}")
    if report.found:
        return
    if report.dropped_rows:
        text = f"every label row is unusable; the first: {report.messages[0]}"
    elif report.empty:
        logger.warning("%s: all label files are empty: %d pictures of background only", description, report.empty)
        return
    else:
        text = f"no labels found; the labels of {images[0]} were looked for in {label_path_for(images[0])}"
    if require_labels:
        raise InputError(f"{description}: {text}")
    logger.warning("%s: %s", description, text)


# The cached form ------------------------------------------------------------------------------------------------------


def _key(images: Sequence[Path], nc: int | None) -> str:
    """Fingerprint of everything the scan depends on."""
    labels = [label_path_for(image) for image in images]
    root = os.path.commonpath([images[0].parent, labels[0].parent])  # a moved data set keeps its cache
    return fingerprint([*images, *labels], root, f"{FORMAT} {nc}")


def _pack(images: Sequence[Path], labels: LabelSet) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Flatten to arrays: per picture its position, size and number of rows; then all rows and all points."""
    position = {image: i for i, image in enumerate(images)}
    records = labels.records
    segments = [s for r in records for s in (r.segments or [np.zeros((0, 2), np.float32)] * len(r.boxes))]
    arrays = {
        "position": np.array([position[r.image] for r in records], np.int64),
        "hw": np.array([r.hw for r in records], np.int64),
        "rows": np.array([-1 if r.label is None else len(r.boxes) for r in records], np.int64),
        "boxes": np.concatenate([r.boxes for r in records]),
        "segment_points": np.array([len(s) for s in segments], np.int64),
        "points": np.concatenate([*segments, np.zeros((0, 2), np.float32)]),
    }
    return arrays, vars(labels.report)


def _unpack(images: Sequence[Path], arrays: dict[str, np.ndarray], content: dict[str, Any]) -> LabelSet | None:
    """Rebuild what ``_pack`` flattened; None when the arrays do not fit together."""
    try:
        rows = arrays["rows"].clip(0)
        boxes = np.split(arrays["boxes"].reshape(rows.sum(), 5), rows.cumsum()[:-1])
        lengths = arrays["segment_points"].reshape(rows.sum())
        # Most sets have no polygon at all, and a split into a million nothings takes seconds.
        points = np.split(arrays["points"].reshape(lengths.sum(), 2), lengths.cumsum())[:-1] if lengths.any() else []
        records = []
        first = 0
        for place, hw, count, block in zip(arrays["position"], arrays["hw"].tolist(), arrays["rows"], boxes):
            own = tuple(points[first : first + len(block)])
            first += len(block)
            label = None if count < 0 else label_path_for(images[place])
            outlined = any(len(polygon) for polygon in own)
            records.append(LabelRecord(images[place], label, (hw[0], hw[1]), block, own if outlined else ()))
        report = ScanReport(**{**content, "messages": tuple(content["messages"])})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        logger.debug("label cache does not fit its data set (%s), labels are read again", error)
        return None
    return LabelSet(records, report)
