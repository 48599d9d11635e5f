"""What can be wrong with a data set beyond single rows: boxes that cannot be learned, images in two splits, ..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.core.files import IMAGE_SUFFIXES, open_regular
from utils.datasets.formats.annotations import CROWD, DROPPED_KINDS, NOTE
from utils.datasets.labels.records import (
    BAD_IMAGE,
    BAD_LABELS,
    BAD_ROW,
    CLIPPED,
    FOREIGN,
    REPEATED,
    Finding,
    LabelRecord,
)
from utils.datasets.labels.yolo_text import row_lines

TINY = "tiny box"
THIN = "box without pixels"
WHOLE = "box of the whole image"
ALIKE = "nearly the same box"
TWO_CLASSES = "two classes for one box"
NO_LABELS = "no label file"
SHARED = "one label file for several images"
ORPHAN = "label file without image"
UNUSED = "class without boxes"
IDENTICAL = "identical images"
CONTRADICTION = "identical images, different labels"
LEAK = "image of the training set in another split"
DAMAGED = "damaged image"
NO_SPLIT = "unusable split"

# Every kind the check knows, the grave ones first, with its meaning.
EXPLAINED: dict[str, str] = {
    NO_SPLIT: "nothing of this split can be used",
    FOREIGN: "training refuses the set: correct the rows, or nc and names in the yaml",
    BAD_IMAGE: "dropped with all their labels",
    BAD_LABELS: "dropped with their images",
    BAD_ROW: "dropped; the other rows of the image are used",
    DAMAGED: "used, but part of the image is grey or shifted",
    LEAK: "scores on that split are too good: remove them from one of the two",
    CONTRADICTION: "the model learns two contradicting labels: keep one",
    TWO_CLASSES: "the same place under two classes in one image",
    SHARED: "the images differ only in their suffix, and all get the same labels",
    CLIPPED: "a little outside the image, clipped to its border",
    REPEATED: "counted once",
    ALIKE: "same class, IoU of at least 0.95: one object labelled twice?",
    THIN: "narrower than one pixel of the image",
    TINY: "shorter than two pixels at the training size",
    WHOLE: "a class for the whole image?",
    IDENTICAL: "within one split, or in val and test",
    NO_LABELS: "used as background without any object",
    ORPHAN: "its image was deleted or renamed?",
    UNUSED: "the model cannot learn it",
    NOTE: "used, but worth a look",
    **DROPPED_KINDS,
}
GRAVE = frozenset(
    {NO_SPLIT, FOREIGN, BAD_IMAGE, BAD_LABELS, BAD_ROW, DAMAGED, LEAK, CONTRADICTION, CROWD}
)  # data is lost, or scores deceive

_TINY_PX = 2.0
_WHOLE_SIDE = 0.98  # of both sides of the image
_ALIKE_IOU = 0.95


# Boxes ----------------------------------------------------------------------------------------------------------------


def box_findings(
    record: LabelRecord, imgsz: int, nc: int | None = None, keypoint_columns: int = 0
) -> Iterator[Finding]:  # fmt: skip
    """Odd boxes of one image; ``imgsz`` is its longer side in training, the rest is what its labels were read with."""
    if not len(record.boxes):
        return
    odd: list[tuple[int, str, str]] = []  # row, kind, problem
    sides_px = record.boxes[:, 3:] * np.array(record.hw[::-1], np.float32)  # [n, 2] width, height
    scale = imgsz / max(record.hw)
    for i in np.flatnonzero((sides_px.min(1) * min(scale, 1.0) < _TINY_PX) | (sides_px.min(1) < 1)).tolist():
        width, height = sides_px[i].tolist()
        if min(width, height) < 1:
            odd.append((i, THIN, f"{width:.2f} x {height:.2f} pixels"))
        else:
            odd.append((i, TINY, f"{width * scale:.1f} x {height * scale:.1f} pixels at size {imgsz}"))
    for i in np.flatnonzero((record.boxes[:, 3:] >= _WHOLE_SIDE).all(1)).tolist():
        odd.append((i, WHOLE, f"at least {_WHOLE_SIDE:.0%} of both sides"))
    odd += _alike(record.boxes)
    if not odd:
        return
    lines = _lines(record, nc, keypoint_columns)
    for i, kind, problem in sorted(odd):
        value = " ".join(f"{number:.6g}" for number in record.boxes[i].tolist())
        yield Finding(kind, str(record.label), lines[i], value, problem, "used")


def _alike(boxes: np.ndarray) -> list[tuple[int, str, str]]:
    """Pairs of boxes in nearly the same place, as (row of the later one, kind, problem)."""
    if len(boxes) < 2:
        return []
    # Boxes that overlap so much have nearly the same left edge: only neighbours in that order need a closer look.
    xyxy = np.concatenate([boxes[:, 1:3] - boxes[:, 3:] / 2, boxes[:, 1:3] + boxes[:, 3:] / 2], 1).astype(np.float64)
    order = np.argsort(xyxy[:, 0], kind="stable")
    lefts, widths = xyxy[order, 0], boxes[order, 3]
    reach = np.searchsorted(lefts, lefts + widths * (1 - _ALIKE_IOU) + 1e-9, side="right")
    odd = []
    for a in np.flatnonzero(reach > np.arange(len(order)) + 1).tolist():
        one = xyxy[order[a]]
        others = order[a + 1 : reach[a]]
        low, high = np.maximum(one[:2], xyxy[others, :2]), np.minimum(one[2:], xyxy[others, 2:])
        shared = (high - low).clip(0).prod(1)
        union = (one[2:] - one[:2]).prod() + (xyxy[others, 2:] - xyxy[others, :2]).prod(1) - shared
        for b in others[shared >= _ALIKE_IOU * union].tolist():
            first, second = sorted((int(order[a]), b))
            same = boxes[first, 0] == boxes[second, 0]
            other = " ".join(f"{number:.6g}" for number in boxes[first].tolist())
            odd.append((second, ALIKE if same else TWO_CLASSES, f"beside {other}"))
    return odd


def _lines(record: LabelRecord, nc: int | None, keypoint_columns: int) -> Sequence[int]:
    """The line of each box in its label file; zeros where annotations are no lines or have changed since."""
    if record.label is not None and record.label.suffix.lower() == ".txt":
        try:
            lines = row_lines(record.label, record.hw, nc, keypoint_columns)
        except OSError:
            lines = []
        if len(lines) == len(record.boxes):
            return lines
    return [0] * len(record.boxes)


# Classes and files ----------------------------------------------------------------------------------------------------


def class_counts(records: Sequence[LabelRecord], nc: int) -> np.ndarray:
    """[nc] number of boxes of each class."""
    classes = [record.boxes[:, 0] for record in records]
    return np.bincount(np.concatenate([np.zeros(0), *classes]).astype(int), minlength=nc)[:nc]


def unused_classes(counts: np.ndarray, names: Sequence[str], file: Path) -> Iterator[Finding]:
    """Classes of the yaml ``file`` that have no box in the training set."""
    for index in np.flatnonzero(counts == 0).tolist():
        yield Finding(UNUSED, str(file), value=f"class {index} ({names[index]})", problem="no box has it")


def file_findings(records: Sequence[LabelRecord]) -> Iterator[Finding]:
    """Images without a label file, label files of several images, and label files that belong to no image."""
    users: dict[Path, set[Path]] = defaultdict(set)
    folders: dict[Path, Path] = {}  # folder of labels -> folder of images
    for record in records:
        if record.label is None:
            yield Finding(NO_LABELS, str(record.image), problem="counts as background")
        elif record.label.suffix.lower() == ".txt":
            users[record.label].add(record.image)
            folders[record.label.parent] = record.image.parent
    for label, images in users.items():
        if len(images) > 1:
            names = ", ".join(sorted(image.name for image in images))
            yield Finding(SHARED, str(label), value=names, problem=f"{len(images)} images", action="used for all")
    for labels, image_folder in sorted(folders.items()):
        stems = {file.stem for file in image_folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES}
        for file in sorted(labels.iterdir()):
            if file.suffix.lower() == ".txt" and file.stem not in stems and _looks_like_labels(file):
                yield Finding(ORPHAN, str(file), problem=f"no image {file.stem}.* in {image_folder}", action="not used")


def _looks_like_labels(file: Path) -> bool:
    """Lists of images or of classes lie beside label files as well."""
    try:
        with open_regular(file) as stream:
            words = stream.readline(1000).split()
    except OSError:
        return False
    return len(words) >= 5 and words[0].isdigit()


# The same content -----------------------------------------------------------------------------------------------------


def identity_findings(
    splits: Mapping[str, Sequence[LabelRecord]], groups: Sequence[Sequence[Path]]
) -> Iterator[tuple[str, Finding]]:
    """Images in train and elsewhere, and repeated or contradicting ones, as (split, finding).

    ``groups`` are the paths with equal content. A path in two splits is a leak as well; a path named several times in
    one split is not reported, since lists repeat a line to give an image more weight.
    """
    places: dict[Path, dict[str, LabelRecord]] = defaultdict(dict)
    for split, records in splits.items():
        for record in records:
            places[record.image][split] = record
    grouped = {path for group in groups for path in group}
    alone = [[path] for path, inside in places.items() if len(inside) > 1 and path not in grouped]
    for group in [*groups, *alone]:
        members = [(split, record) for path in group for split, record in places[path].items()]
        first_split, first = min(members, key=lambda member: (member[0] != "train", str(member[1].image)))
        for split, record in members:
            if record is first:
                continue
            said = f"the same as {first.image} of {first_split}"
            if (split == "train") != (first_split == "train"):
                yield split, Finding(LEAK, str(record.image), problem=said, action="used in both")
            else:
                yield split, Finding(IDENTICAL, str(record.image), problem=said, action="used")
            if not _same_boxes(first, record):
                problem = f"{said}, with other boxes: {len(first.boxes)} there and {len(record.boxes)} here"
                yield split, Finding(CONTRADICTION, str(record.label or record.image), problem=problem, action="used")


def _same_boxes(a: LabelRecord, b: LabelRecord) -> bool:
    """Whether two images have the same rows in any order, to the digits that label files have."""
    if len(a.boxes) != len(b.boxes):
        return False
    rows = [sorted(map(tuple, record.boxes.round(4).tolist())) for record in (a, b)]
    return bool(np.allclose(rows[0], rows[1], atol=2e-4)) if rows[0] else True
