"""Boxes in pixels, as COCO and VOC files have them, to the rows of a label set.

Policy, object by object (the image and its other objects stay usable):

* a box is clipped to the image; further outside than the tolerance of label files this is said in a note, because in
  pixels, unlike in fractions, there is no doubt about what is meant;
* no area (before or after clipping) or a number that is not finite: the object is dropped;
* a repeated object is dropped;
* when the annotations were made for another size of the image with the same proportions, boxes are scaled with it;
  with other proportions the place of the boxes is unknown, and the image is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.datasets.labels.records import BAD_ROW, CLIPPED, KEYPOINTS, REPEATED, Finding, LabelFile

NOTE = "note"  # nothing is lost, but the user should check it
CROWD = "crowd annotation"
CROWD_AS_REQUESTED = "crowd annotation, dropped as the yaml says"
MASK = "mask without outline"
DIFFICULT = "difficult object"
NO_AREA = "shape without a box"
DROPPED_KINDS = {
    CROWD: (
        "crowd annotations dropped (iscrowd: 1, as CVAT marks masks): 'crowd: keep' in the data yaml uses their boxes,"
        " 'crowd: drop' confirms that they are not wanted"
    ),
    CROWD_AS_REQUESTED: "crowd annotations dropped, as the yaml says",
    MASK: "masks, of which only the boxes are used",
    DIFFICULT: "difficult objects dropped",
    NO_AREA: "points, lines and other shapes without a box dropped",
    KEYPOINTS: "label files with key points, of which only the boxes are used",
}

_FAR = 0.01  # of the image's side: further outside is worth a note
_NO_OUTLINE = np.zeros((0, 2), np.float32)


class UnreadableLabels(OSError):
    """The annotations of an image cannot be read, or do not belong to it, so that the image is of no use.

    The message does not name the file. An OSError, because that is what it means to a scan.
    """


@dataclass(frozen=True)
class PixelObject:
    """One object: its class, where and what it is in the file, corners x1 y1 x2 y2 and outline [m, 2] in pixels."""

    cls: int
    line: int
    value: str
    xyxy: tuple[float, float, float, float]
    outline: np.ndarray = field(default_factory=lambda: _NO_OUTLINE)


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether ``iscrowd`` of a COCO annotation says so, as a number, as true or as text."""
    return str(annotation.get("iscrowd", 0)).strip().lower() in ("1", "1.0", "true")


def numbers(values: Any, count: int | None = None) -> list[float]:
    """Check a list of finite numbers.

    Raises:
        ValueError: it is no list, has another length than ``count``, or something in it is no finite number.
    """
    if not isinstance(values, (list, tuple)):
        raise ValueError("not a list of numbers")
    if count is not None and len(values) != count:
        raise ValueError(f"{len(values)} numbers instead of {count}")
    result = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{str(value)[:20]!r} is not a number")
        try:
            result.append(float(value))
        except OverflowError:
            raise ValueError("a number is beyond all bounds") from None
        if not math.isfinite(result[-1]):
            raise ValueError("not finite")
    return result


def frame(stated_wh: tuple[float, float] | None, hw: tuple[int, int]) -> tuple[float, float]:
    """Width and height that the pixels of an annotation file refer to.

    Args:
        stated_wh: the size the file states, None when it states none.
        hw: height and width of the image as displayed.

    Raises:
        UnreadableLabels: the proportions differ.
    """
    height, width = hw
    if stated_wh is None or stated_wh == (width, height):
        return float(width), float(height)
    stated_w, stated_h = stated_wh
    # One pixel of rounding on either side is no other shape.
    if abs(stated_w * height - width * stated_h) <= max(width, height) + max(stated_wh):
        return stated_wh
    turned = ", perhaps turned by its EXIF flag" if stated_wh == (height, width) else ""
    raise UnreadableLabels(
        f"made for {stated_w:g}x{stated_h:g} pixels, but the image has {width}x{height}{turned}; "
        "the place of the boxes is unknown"
    )


def to_label_file(
    file: Path, objects: Sequence[PixelObject], size_wh: tuple[float, float], findings: Sequence[Finding] = ()
) -> LabelFile:
    """Apply the policy of this module to the objects of one image.

    ``size_wh`` is what the pixels refer to; ``findings`` of the reader come before those made here.
    """
    problems = list(findings)
    rows: list[tuple[float, ...]] = []
    outlines: list[np.ndarray] = []
    seen: set[tuple[object, ...]] = set()
    for item in objects:
        try:
            corners, far = _inside(item.xyxy, size_wh)
        except ValueError as error:
            problems.append(Finding(BAD_ROW, str(file), item.line, item.value, str(error), "row dropped"))
            continue
        outline = (item.outline / size_wh).clip(0, 1).astype(np.float32) if len(item.outline) else _NO_OUTLINE
        identity = (item.cls, corners, outline.tobytes())
        if identity in seen:
            problems.append(Finding(REPEATED, str(file), item.line, item.value, "repeats another one", "row dropped"))
            continue
        seen.add(identity)
        if far:
            problem = f"reaches beyond the {size_wh[0]:g}x{size_wh[1]:g} pixels of the image"
            kinds = [CLIPPED] + [NOTE] * (far > _FAR)
            problems += [Finding(kind, str(file), item.line, item.value, problem, "clipped") for kind in kinds]
        x1, y1, x2, y2 = corners
        rows.append((item.cls, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
        outlines.append(outline)
    boxes = np.array(rows, np.float32).reshape(-1, 5)
    return LabelFile(boxes, tuple(outlines) if any(map(len, outlines)) else (), tuple(problems))


def _inside(
    xyxy: tuple[float, float, float, float], size_wh: tuple[float, float]
) -> tuple[tuple[float, float, float, float], float]:
    """Corners as fractions of the image, clipped to it, and how far outside it they were.

    In plain numbers: for four of them numpy takes several times as long, and sets have a million boxes.
    """
    (left, top, right, bottom), (width, height) = xyxy, size_wh
    if right <= left or bottom <= top:
        raise ValueError("width and height must be above 0")
    x1, x2 = (min(max(x / width, 0.0), 1.0) for x in (left, right))
    y1, y2 = (min(max(y / height, 0.0), 1.0) for y in (top, bottom))
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"lies outside the {width:g}x{height:g} pixels of the image")
    excess = max(x1 - left / width, right / width - x2, y1 - top / height, bottom / height - y2)
    return (x1, y1, x2, y2), excess if excess > 1e-9 else 0.0


def merge_outlines(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One closed polygon [m, 2] around several parts [k, 2] of an object.

    The parts are joined by bridges without width, which all start at the first point of the first part: each further
    part is walked around once and left the way it was entered, so that area and bounds are those of the parts.
    """
    if len(parts) == 1:
        return parts[0]
    hub = parts[0][:1]
    walks = [walk for part in parts[1:] for walk in (part, part[:1], hub)]
    return np.concatenate([parts[0], hub, *walks])
