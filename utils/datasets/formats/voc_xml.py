"""VOC annotations (one xml a picture) as labels.

What is used of a file: ``size`` (width, height) and of every ``object`` its ``name``, ``bndbox`` and ``difficult``.

* ``xmin ymin xmax ymax`` are taken as the corners of the box, as they are: ``cx = (xmin + xmax) / 2 / width`` and
  ``w = (xmax - xmin) / width``. Read as VOC's own numbers, which count pixels from 1, the box so loses the left-most
  pixel column and the upper-most row; most tools write corners, and so a file of theirs comes back unchanged.
* Objects marked difficult are used, unless the data yaml says ``difficult: drop``.
* A picture without an xml file is background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.datasets.formats.annotations import DIFFICULT
from utils.datasets.formats.named import FileContent, NamedLabels, Shape
from utils.errors import InputError
from utils.xml_file import Element, read_xml

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


# One annotation file --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VocObject:
    """One ``object``: its name, the line it starts on, corners in pixels, or what is wrong with them."""

    name: str
    line: int
    difficult: bool = False
    xyxy: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    problem: str = ""

    @property
    def value(self) -> str:
        """What the object is, for a message."""
        return f"{self.name} {' '.join(f'{v:g}' for v in self.xyxy)}" if not self.problem else self.name


@dataclass(frozen=True)
class VocFile:
    """What is used of an annotation file; ``size_wh`` is None where it states no size of the picture."""

    filename: str
    size_wh: tuple[float, float] | None
    objects: tuple[VocObject, ...]


def read_voc(file: Path) -> VocFile:
    """Read one annotation file.

    Raises:
        OSError: it cannot be read.
        InputError: it is not xml, or no annotation; names file and line.
    """
    root = read_xml(file)
    if root.tag != "annotation":
        raise InputError(f"{file}:{root.line}: the outermost element is <{root.tag[:40]}>, expected <annotation>")
    objects = tuple(_object(element) for element in root.children if element.tag == "object")
    return VocFile(root.value("filename") or "", _size(root.child("size")), objects)


def _size(element: Element | None) -> tuple[float, float] | None:
    """Width and height; None where they are missing or 0, as some tools write them."""
    if element is None:
        return None
    try:
        width, height = _number(element, "width"), _number(element, "height")
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _number(element: Element, tag: str) -> float:
    text = element.value(tag)
    if text is None:
        raise ValueError(f"no <{tag}>")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"<{tag}> '{text[:20]}' is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"<{tag}> is not finite")
    return number


def _object(element: Element) -> VocObject:
    name = element.value("name") or ""
    difficult = element.value("difficult") in ("1", "true", "True")
    box = element.child("bndbox")
    try:
        if not name:
            raise ValueError("an object without <name>")
        if box is None:
            raise ValueError("no <bndbox>")
        x1, y1, x2, y2 = (_number(box, tag) for tag in _CORNERS)
    except ValueError as error:
        return VocObject(name, element.line, difficult, problem=str(error))
    return VocObject(name, element.line, difficult, (x1, y1, x2, y2))


# As labels ------------------------------------------------------------------------------------------------------------


class VocLabels(NamedLabels):
    """The labels of images with an annotation file each."""

    kind = "voc 1"

    def __init__(
        self,
        files: Mapping[Path, Path],
        names: Sequence[str] | None,
        *,
        drop_difficult: bool = False,
        strict: bool = True,
    ) -> None:
        """Keep what is needed to read a file when its turn comes.

        Args:
            files: image -> its annotation file, which need not exist.
            names: the classes; None: everything is class 0.
            drop_difficult: leave out objects marked difficult.
            strict: a name that ``names`` lacks is an error; otherwise such objects are dropped.
        """
        super().__init__(files, names, strict)
        self.settings += f" {drop_difficult}"
        self._drop_difficult = drop_difficult

    def content_of(self, file: Path, image: Path) -> FileContent:
        found = read_voc(file)
        left_out = DIFFICULT if self._drop_difficult else ""
        shapes = [
            Shape(o.name, o.line, o.value, o.xyxy, problem=o.problem, left_out=left_out if o.difficult else "")
            for o in found.objects
        ]
        return FileContent(found.size_wh, shapes)
