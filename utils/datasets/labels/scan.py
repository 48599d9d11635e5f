"""Read and check the images and label files of a data set, by the policy of ``utils.datasets.labels.yolo_text``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.core.errors import InputError, first_line
from utils.core.files import collector_off
from utils.core.names import counted, excerpt
from utils.datasets.formats.annotations import CROWD, NO_AREA
from utils.datasets.formats.voc_layout import unread
from utils.datasets.labels.cache import fingerprint, load_cache, save_cache
from utils.datasets.labels.image_check import check_image
from utils.datasets.labels.records import (
    BAD_IMAGE,
    BAD_LABELS,
    FOREIGN,
    Finding,
    LabelFile,
    LabelRecord,
    LabelSet,
    ScanReport,
    pack,
    unpack,
)
from utils.datasets.labels.yolo_text import RowReader, TextRows, read_label_file

__all__ = ["Finding", "LabelFile", "LabelRecord", "LabelSet", "RowReader", "ScanReport", "TextRows"]
__all__ += ["read_label_file", "scan_labels"]

logger = logging.getLogger(__name__)

SHOWN = 10  # messages of one kind that are printed; the others are counted
FORMAT = "labels 2"  # part of the cache key: raise it when the policy changes
_CHUNK = 64  # images given to a thread at once
_SLOW_S = 1e-3  # an image that takes longer than this is waited for, not computed


@dataclass(frozen=True)
class _Scanned:
    """What one image and its annotation gave; ``record`` is None for an image that cannot be used."""

    record: LabelRecord | None
    rows: LabelFile


# One image ----------------------------------------------------------------------------------------------------------


def _scan_one(image: Path, label: Path, nc: int | None, reader: RowReader) -> _Scanned:
    """Check one image and read its labels."""

    def unusable(kind: str, file: Path, problem: str, action: str) -> _Scanned:
        finding = Finding(kind, str(file), problem=excerpt(problem, 300), action=action)
        return _Scanned(None, LabelFile(findings=(finding,)))

    try:
        hw = check_image(image)
    except Exception as error:  # decoders fail in many ways, and one broken image must not end the scan
        return unusable(BAD_IMAGE, image, first_line(error).removeprefix(f"{image}: "), "image dropped")
    try:
        rows = reader.read(image, hw, nc)
    except OSError as error:
        problem = f"labels cannot be read ({error.strerror or error})"
        return unusable(BAD_LABELS, label, problem, f"image {image} dropped")
    if rows is None:
        return _Scanned(LabelRecord(image, None, hw, LabelFile().boxes), LabelFile())
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
    strict: bool = True,
    reader: RowReader | None = None,
) -> LabelSet:
    """Read and check the labels of ``images``, from the cache where nothing has changed; log one line of counts.

    ``single_cls`` turns every class into 0. ``reader`` says where rows come from, by default from label files. Raises
    InputError when no image is usable, when a class id is not below ``nc``, and, with ``require_labels``, when there
    is no usable label at all. With ``strict`` off those are findings of the report, and rows of unknown classes are
    dropped.
    """
    images = list(images)
    if not images:
        raise InputError(f"{description}: no images given")
    reader = reader or TextRows()
    limit = None if single_cls else nc
    with collector_off():
        annotations = [reader.file_for(image) for image in images]
        stored = _Stored(cache_path, images, annotations, f"{limit} {reader.settings}") if cache_path else None
        labels = restored = stored.load() if stored else None
    if labels is None:
        scanned = _scan_all(images, annotations, limit, reader, workers, progress, description)
        foreign = [(s.record.label or s.record.image, *place) for s in scanned if s.record for place in s.rows.foreign]
        if foreign and strict:
            raise InputError(_foreign_classes(foreign, nc, description))
        labels = LabelSet([s.record for s in scanned if s.record], _report(scanned, nc))
        if stored and labels.records and not foreign:
            stored.save(labels)
    _log_report(labels.report, description, restored is not None)
    _refuse_useless(images, annotations, labels.report, description, require_labels, strict)
    if single_cls:
        for record in labels.records:
            record.boxes[:, 0] = 0
    return labels


def _scan_all(
    images: Sequence[Path],
    annotations: Sequence[Path],
    nc: int | None,
    reader: RowReader,
    workers: int,
    progress: bool,
    description: str,
) -> list[_Scanned]:
    """Scan every image."""

    def scan_chunk(first: int) -> list[_Scanned]:
        part = slice(first, first + _CHUNK)
        return [_scan_one(image, label, nc, reader) for image, label in zip(images[part], annotations[part])]

    scanned: list[_Scanned] = []
    with tqdm(desc=description, total=len(images), disable=not progress, leave=False) as bar:
        for chunk in _map_where_slow(scan_chunk, range(0, len(images), _CHUNK), workers):
            scanned += chunk
            bar.update(len(chunk))
    return scanned


def _map_where_slow(
    scan_chunk: Callable[[int], list[_Scanned]], starts: Sequence[int], workers: int
) -> Iterator[list[_Scanned]]:
    """Map over chunks, in threads where that pays: where files are slow to open or images have to be decoded.

    Python runs one thread at a time, so that on a fast disk several only get in each other's way.
    """
    seconds = 0.0
    for start in starts[:2]:  # the first is slow anyway: decoders are imported
        begin = time.perf_counter()
        chunk = scan_chunk(start)
        seconds = time.perf_counter() - begin
        yield chunk
    if workers <= 1 or seconds < _CHUNK * _SLOW_S:
        yield from map(scan_chunk, starts[2:])
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(scan_chunk, starts[2:])


def _report(scanned: Sequence[_Scanned], nc: int) -> ScanReport:
    records = [s.record for s in scanned if s.record]
    labelled = sum(len(record.boxes) > 0 for record in records)
    missing = sum(record.label is None for record in records)
    findings = [finding for s in scanned for finding in s.rows.findings]
    findings += [
        Finding(FOREIGN, str(s.record.label), line, f"class {c}", f"outside 0..{nc - 1}", "training refuses the set")
        for s in scanned
        if s.record
        for line, c in s.rows.foreign
    ]
    corrupt = len(scanned) - len(records)
    return ScanReport(labelled, missing, len(records) - labelled - missing, corrupt, tuple(findings))


def _foreign_classes(places: Sequence[tuple[Path, int, int]], nc: int, description: str) -> str:
    """What to say about rows (file, line, class) whose class is not in 0..nc-1."""
    files = len({file for file, _, _ in places})
    shown = ", ".join(f"{file}:{line} (class {c})" for file, line, c in places[:SHOWN])
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    highest = max(c for _, _, c in places)
    cure = f"set nc in the data yaml to {highest + 1} or more, or " if highest >= nc else ""
    return (
        f"{description}: {counted(len(places), 'label row')} in {counted(files, 'file')} with a class outside "
        f"0..{nc - 1}: {shown}{more}; {cure}correct the rows"
    )


def _log_report(report: ScanReport, description: str, from_cache: bool) -> None:
    messages = report.messages
    for message in messages[:SHOWN]:
        logger.warning("%s: %s", description, message)
    if len(messages) > SHOWN:
        logger.warning("%s: %s of this kind", description, counted(len(messages) - SHOWN, "more message"))
    logger.info(
        "%s: %d images with labels, %d without a label file, %d with an empty one, %d unreadable; "
        "rows: %d dropped, %d repeated, %d clipped%s",
        description,
        report.labelled,
        report.missing,
        report.empty,
        report.corrupt,
        report.dropped_rows,
        report.duplicate_rows,
        report.clipped_rows,
        " (from the cache)" if from_cache else "",
    )


def _refuse_useless(
    images: Sequence[Path],
    annotations: Sequence[Path],
    report: ScanReport,
    description: str,
    require_labels: bool,
    strict: bool,
) -> None:
    """Raise InputError, or warn, when nothing can be learned or measured from the set."""
    refused = strict or require_labels
    if report.corrupt == len(images):
        text = f"no image of {len(images)} is usable; {report.messages[0]}"
    elif report.labelled:
        return
    elif report.dropped_rows:
        text, refused = f"every label row is unusable; the first: {report.messages[0]}", require_labels
    elif report.counts[FOREIGN]:
        return
    elif report.counts[NO_AREA]:
        text = f"no object of {annotations[0]} or the other files has a box: points and lines only"
    elif report.counts[CROWD]:
        text = (
            f"every annotation of {annotations[0]} is a crowd (iscrowd: 1) and dropped; CVAT marks masks so: "
            "a data yaml that names this file and has 'crowd: keep' uses their boxes"
        )
    elif report.empty:
        logger.warning(
            "%s: all label files are empty: %s of background only", description, counted(report.empty, "image")
        )
        return
    else:
        text = f"no labels found; the labels of {images[0]} were looked for in {annotations[0]}{unread(images[0])}"
        refused = require_labels
    if refused:
        raise InputError(f"{description}: {text}")
    logger.warning("%s: %s", description, text)


class _Stored:
    """The cached scan of one set of images: found again as long as no file has changed since this was made."""

    def __init__(self, path: Path, images: Sequence[Path], annotations: Sequence[Path], settings: str) -> None:
        self.path, self.images, self.annotations = path, images, annotations
        try:  # a moved data set keeps its cache
            self.root = os.path.commonpath([images[0].parent.absolute(), annotations[0].parent.absolute()])
        except ValueError:  # on two drives
            self.root = str(images[0].parent.absolute())
        self.key = fingerprint(
            [*map(str, images), *dict.fromkeys(map(str, annotations))], self.root, f"{FORMAT} {settings}"
        )

    def load(self) -> LabelSet | None:
        """The stored scan, or None when there is none, or files have changed."""
        cached = load_cache(self.path, self.key)
        if cached is None:
            return None
        try:
            return unpack(self.images, self.annotations, *cached, self.root)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            logger.debug("%s: label cache does not fit its data set (%s), labels are read again", self.path, error)
            return None

    def save(self, labels: LabelSet) -> None:
        """Keep a scan for the next start."""
        save_cache(self.path, self.key, *pack(self.images, labels, self.root))
