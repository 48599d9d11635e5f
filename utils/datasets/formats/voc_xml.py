"""VOC annotations (one xml an image) as labels.

What is used of a file: ``size`` (width, height) and of every ``object`` its ``name``, ``bndbox`` and ``difficult``.

* ``xmin ymin xmax ymax`` are taken as the corners of the box, as they are: ``cx = (xmin + xmax) / 2 / width`` and
  ``w = (xmax - xmin) / width``. Read as VOC's own numbers, which count pixels from 1, the box so loses the left-most
  pixel column and the upper-most row; most tools write corners, and converting such a
  file there and back changes nothing.
* Objects marked difficult are used, unless the data yaml says ``difficult: drop``.
* An image without an xml file is background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.core.errors import InputError
from utils.core.xml_file import Element, finite, read_xml, stated_size
from utils.datasets.formats.annotations import DIFFICULT
from utils.datasets.formats.named import FileContent, NamedLabels, Shape

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


# One annotation file --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VocFile:
    """What is used of an annotation file: the name that it gives its image, and what it says of it."""

    filename: str
    content: FileContent


def read_voc(file: Path, drop_difficult: bool = False) -> VocFile:
    """Read one annotation file; with ``drop_difficult`` its difficult objects are dropped.

    Raises:
        OSError: it cannot be read.
        InputError: it is not xml, or no annotation; names file and line.
    """
    root = read_xml(file)
    if root.tag != "annotation":
        raise InputError(f"{file}:{root.line}: the outermost element is <{root.tag[:40]}>, expected <annotation>")
    shapes = [_object(element, drop_difficult) for element in root.children if element.tag == "object"]
    size = root.child("size")
    wh = stated_size(size.value("width"), size.value("height")) if size else None
    return VocFile(root.value("filename") or "", FileContent(wh, shapes))


def _object(element: Element, drop_difficult: bool) -> Shape:
    name = element.value("name") or ""
    difficult = drop_difficult and element.value("difficult") in ("1", "true", "True")
    box = element.child("bndbox")
    try:
        if not name:
            raise ValueError("an object without <name>")
        if box is None:
            raise ValueError("no <bndbox>")
        x1, y1, x2, y2 = (finite(box.value(tag), f"<{tag}>") for tag in _CORNERS)
    except ValueError as error:
        return Shape(name, element.line, name, problem=str(error))
    value = f"{name} {x1:g} {y1:g} {x2:g} {y2:g}"
    return Shape(name, element.line, value, (x1, y1, x2, y2), excluded=DIFFICULT if difficult else "")


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
            drop_difficult: drop objects marked difficult.
            strict: a name that ``names`` lacks is an error; otherwise such objects are dropped.
        """
        super().__init__(files, names, strict)
        self.settings += f" {drop_difficult}"
        self._drop_difficult = drop_difficult

    def content_of(self, file: Path, image: Path) -> FileContent:
        return read_voc(file, self._drop_difficult).content
