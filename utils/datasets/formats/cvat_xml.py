"""CVAT annotations ("CVAT for images 1.1": one xml for all images) as labels.

What is used of a file: of every ``image`` its ``name``, ``width``, ``height`` and ``subset``, and its shapes.

* Boxes are boxes; turned ones (``rotation``, degrees clockwise around their centre) and polygons are outlines with
  their bounds as the box; of ellipses, cuboids and masks the box around them is used.
* Points, polylines, skeletons and tags have no box: they are dropped and counted.
* Where the file has subsets called like the splits (Train, Validation, Test), a split has the images of its subset.
* An image that is listed more than once, as in a project of several tasks, has the objects of all its entries.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.config.categories import split_of_subset
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.xml_file import Element, finite, read_xml, stated_size
from utils.datasets.formats.annotations import MASK, NO_AREA
from utils.datasets.formats.coco_json import image_folders, locate_images
from utils.datasets.formats.named import FileContent, NamedLabels, Shape

LOG = logging.getLogger(__name__)
_CUBOID = tuple(f"{axis}{corner}{face}" for face in "12" for corner in ("tl", "bl", "tr", "br") for axis in "xy")


class CvatLabels(NamedLabels):
    """The labels of the images of one file."""

    kind = "cvat 1"

    def __init__(
        self, file: Path, names: Sequence[str] | None, *, split: str, folder: Path | None = None, strict: bool = True
    ) -> None:
        """Read the file and find its images.

        Args:
            file: the xml file.
            names: the classes; None: everything is class 0.
            split: "train", "val" or "test".
            folder: where the images are said to be; None: beside the file, in ``images`` and its subsets.
            strict: a label that ``names`` lacks is an error; otherwise such objects are dropped.

        Raises:
            FileNotFoundError: the file, or all of its images, are missing.
            InputError: it is no such file, or has no image of this split.
        """
        with_split = read_cvat(file)
        chosen = [element for of_split, element in with_split if of_split == split]
        if not any(of_split for of_split, _ in with_split):
            chosen = [element for _, element in with_split]
        elif others := [element for of_split, element in with_split if not of_split]:
            subset = others[0].attributes.get("subset", "")
            LOG.warning(
                "%s: %s of subsets that are no split dropped, such as '%s'",
                file,
                counted(len(others), "image"),
                subset,
            )
        if not chosen:
            raise InputError(f"{file}: none of its subsets is called like {split}; all its images are in other splits")
        self._entries: dict[Path, list[Element]] = {}
        for subset in dict.fromkeys(element.attributes.get("subset", "") for element in chosen):
            elements = [element for element in chosen if element.attributes.get("subset", "") == subset]
            folders = image_folders(file, split, folder)
            own = [place / subset for place in folders] if subset else []
            listed = [element.attributes.get("name", "") for element in elements]
            for image, places in locate_images(listed, [*own, *folders], file).items():
                self._entries.setdefault(image, []).extend(elements[place] for place in places)
        super().__init__(dict.fromkeys(self._entries, file), names, strict)
        self.settings += f" {split}"

    def content_of(self, file: Path, image: Path) -> FileContent:
        entries = self._entries[image]
        size = stated_size(entries[0].attributes.get("width"), entries[0].attributes.get("height"))
        return FileContent(size, [_shape(shape) for entry in entries for shape in entry.children])


def read_cvat(file: Path) -> Sequence[tuple[str, Element]]:
    """The images of a file, each with the split that its subset is called like, "" for none.

    The file that was read last is kept, for the next split of it, as long as it does not change.

    Raises:
        FileNotFoundError, OSError, InputError: it cannot be read, or is no file of annotated images.
    """
    state = file.stat() if file.is_file() else None
    return _read_cvat(file, state and (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=1)
def _read_cvat(file: Path, _: tuple[int, int, int] | None) -> Sequence[tuple[str, Element]]:
    root = read_xml(file)
    images = [element for element in root.children if element.tag == "image"]
    if not images:
        video = any(element.tag == "track" for element in root.children)
        problem = "tracks of a video; export it as 'CVAT for images 1.1'" if video else "no <image>; nothing to read"
        raise InputError(f"{file}: {problem}")
    for element in images:
        name = element.attributes.get("name", "")
        if not name or "\0" in name:
            raise InputError(f"{file}:{element.line}: an <image> without a name")
    splits = [split_of_subset(element.attributes.get("subset", "")) for element in images]
    return list(zip(splits, images))


def _number(element: Element, key: str, default: str | None = None) -> float:
    return finite(element.attributes.get(key, default), key)


def _shape(element: Element) -> Shape:
    """A child of ``image``."""
    name = element.attributes.get("label", "")
    kind, line = element.tag, element.line
    value = f"{kind} '{name}'"
    if kind not in ("box", "polygon", "ellipse", "cuboid", "mask"):
        return Shape(name, line, value, excluded=NO_AREA)
    try:
        if not name:
            raise ValueError("no label")
        if kind == "polygon":
            return Shape.polygon(name, line, value, _points(element))
        if kind == "cuboid":
            corners = np.array([_number(element, key) for key in _CUBOID]).reshape(-1, 2)
            return Shape(name, line, value, Shape.polygon(name, line, value, corners).xyxy)
        if kind == "mask":
            left, top, width, height = (_number(element, key) for key in ("left", "top", "width", "height"))
            return Shape(name, line, value, (left, top, left + width, top + height), note=MASK)
        angle = math.radians(_number(element, "rotation", "0"))
        cos, sin = math.cos(angle), math.sin(angle)
        if kind == "ellipse":
            x, y, rx, ry = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
            half_w, half_h = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
            return Shape(name, line, value, (x - half_w, y - half_h, x + half_w, y + half_h))
        x1, y1, x2, y2 = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        if not angle:
            return Shape(name, line, value, (x1, y1, x2, y2))
        if x2 <= x1 or y2 <= y1:
            raise ValueError("width and height must be above 0")
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        square = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - centre
        turned = square @ np.array([[cos, sin], [-sin, cos]]) + centre  # rows of x y; y points down, so clockwise
        return Shape.polygon(name, line, value, turned)
    except ValueError as error:
        return Shape(name, line, value, problem=str(error))


def _points(element: Element) -> np.ndarray:
    """The points of a polygon [m, 2], written as ``x,y;x,y;...``."""
    pairs = [pair.split(",") for pair in element.attributes.get("points", "").split(";") if pair.strip()]
    try:
        points = np.array([[float(x), float(y)] for x, y in pairs])
    except ValueError:
        raise ValueError("points are not x,y;x,y;...") from None
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"a polygon of {len(points)} points, expected 3 or more finite ones")
    return points
