"""LabelMe annotations (one json an image) as labels.

What is used of a file: ``imageWidth``, ``imageHeight``, ``imagePath`` (to find the image) and of every shape its
``label``, ``shape_type``, ``points`` and ``group_id``.

* Rectangles (two corners in any order) and circles (centre and a point on the circle) are boxes; polygons and turned
  rectangles are outlines with their bounds as the box.
* Of a mask the box around its pixels is used.
* Shapes of one label and one ``group_id`` are the parts of one object.
* Points and lines have no box: they are dropped and counted, as is everything labelled ``__ignore__``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.categories import read_json
from utils.core.errors import InputError, first_line
from utils.core.image import decode_image, stream_hw
from utils.datasets.formats.annotations import MASK, NO_AREA, merge_outlines, numbers
from utils.datasets.formats.named import FileContent, NamedLabels, Shape

_WITHOUT_AREA = frozenset({"point", "points", "line", "linestrip"})
_POLYGONS = frozenset({"polygon", "rotation", "oriented_rectangle"})
_IGNORED = "__ignore__"


class LabelmeLabels(NamedLabels):
    """The labels of images with a LabelMe file each; arguments as for :class:`NamedLabels`."""

    kind = "labelme 1"

    def content_of(self, file: Path, image: Path) -> FileContent:
        return read_labelme(file)


def stated_image(file: Path) -> str:
    """The path of the image as the file has it, with ordinary slashes; "" for a file that cannot be used."""
    try:
        content = read_json(file)
    except (OSError, InputError):
        return ""
    path = content.get("imagePath") if isinstance(content, Mapping) else None
    return path.replace("\\", "/") if isinstance(path, str) and "\0" not in path else ""


def read_labelme(file: Path) -> FileContent:
    """Read one annotation file.

    Raises:
        OSError, InputError: it cannot be read, is not json, or has no list of shapes.
    """
    content = read_json(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("shapes"), list):
        raise InputError(f"{file}: no list 'shapes'; expected a file of LabelMe")
    try:
        width, height = numbers([content.get("imageWidth"), content.get("imageHeight")], 2)
        size = (width, height) if min(width, height) > 0 else None
    except ValueError:
        size = None
    shapes: list[Shape] = []
    places: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(content["shapes"]):
        shape = _shape(entry, number, size)
        group = entry.get("group_id") if isinstance(entry, Mapping) else None
        if group is None or shape.problem or shape.excluded:
            shapes.append(shape)
            continue
        place = places.setdefault((shape.name, repr(group)), len(shapes))
        shapes[place:] = [shape] if place == len(shapes) else [_joined(shapes[place], shape), *shapes[place + 1 :]]
    return FileContent(size, shapes)


def _joined(one: Shape, other: Shape) -> Shape:
    """Two parts of one object: the box around both, and the outline of both where both have one."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = one.xyxy, other.xyxy
    corners = (min(ax1, bx1), min(ay1, by1), max(ax2, bx2), max(ay2, by2))
    both = len(one.outline) and len(other.outline)
    outline = merge_outlines([one.outline, other.outline]) if both else np.zeros((0, 2))
    return Shape(one.name, one.line, one.value, corners, outline, note=one.note or other.note)


def _shape(entry: Any, number: int, size_wh: tuple[float, float] | None) -> Shape:
    """An entry of ``shapes``."""
    name, value = "", f"shapes[{number}]"
    try:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("label"), str) or not entry["label"]:
            raise ValueError("not an object with a label")
        name = entry["label"]
        kind = entry.get("shape_type") or "polygon"  # old files have polygons only and do not say so
        value = f"{value} {kind} '{name}'"
        if kind in _WITHOUT_AREA or name == _IGNORED:
            return Shape(name, 0, value, excluded=NO_AREA)
        if not isinstance(entry.get("points"), list):
            raise ValueError("no list 'points'")
        points = np.array([numbers(point, 2) for point in entry["points"]]).reshape(-1, 2)
        least = 3 if kind in _POLYGONS else 2
        if len(points) < least:
            raise ValueError(f"{len(points)} points, at least {least} are needed")
        if kind in _POLYGONS:
            return Shape.polygon(name, 0, value, points)
        if kind == "circle":
            (x, y), (on_x, on_y) = points[:2].tolist()
            radius = math.hypot(on_x - x, on_y - y)
            return Shape(name, 0, value, (x - radius, y - radius, x + radius, y + radius))
        if kind == "mask":
            return Shape(name, 0, value, _mask_box(entry.get("mask"), points, size_wh), note=MASK)
        if kind != "rectangle":
            return Shape(name, 0, value, excluded=NO_AREA)
        corners = Shape.polygon(name, 0, value, points).xyxy
    except ValueError as error:
        return Shape(name, 0, value, problem=first_line(error))
    return Shape(name, 0, value, corners)


def _mask_box(
    mask: Any, points: np.ndarray, size_wh: tuple[float, float] | None
) -> tuple[float, float, float, float]:  # fmt: skip
    """Corners around the pixels of a mask: a PNG in base64, whose upper left pixel is the first point.

    Raises:
        ValueError: it is none, is empty, or larger than the image.
    """
    left, top = points.min(0).tolist()
    if mask is None or size_wh is None:
        right, bottom = points.max(0).tolist()
        return left, top, right + 1, bottom + 1  # both corners are pixels of the object
    try:
        content = base64.b64decode(mask) if isinstance(mask, str) else b""
    except ValueError:
        raise ValueError("mask: not a PNG in base64") from None
    height, width = stream_hw(BytesIO(content), "mask")
    if width > size_wh[0] + 1 or height > size_wh[1] + 1:
        raise ValueError(f"a mask of {width}x{height} pixels is larger than the image")
    rows, columns = np.nonzero(decode_image(content, "mask").any(-1))
    if not len(rows):
        raise ValueError("a mask without pixels")
    return left + int(columns.min()), top + int(rows.min()), left + int(columns.max()) + 1, top + int(rows.max()) + 1
