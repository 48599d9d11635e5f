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
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from utils.datasets.formats.annotations import (
    DIFFICULT,
    NOTE,
    PixelObject,
    UnreadableLabels,
    frame,
    to_label_file,
)
from utils.datasets.records import BAD_ROW, FOREIGN, Finding, LabelFile
from utils.errors import InputError, nearest
from utils.files import open_regular

_SHOWN = 10
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


# Reading xml ----------------------------------------------------------------------------------------------------------


@dataclass
class Element:
    """An xml element: its tag, the line it starts on, its text and what it contains."""

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def child(self, tag: str) -> Element | None:
        """The first child with this tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def value(self, tag: str) -> str | None:
        """The text of the first child with this tag, without blanks around it; None when there is no such child."""
        child = self.child(tag)
        return None if child is None else child.text.strip()


def _decode(content: bytes) -> str:
    """The text of a file in the encoding it declares; ValueError when it is another one."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None:
        declared = _DECLARED.match(content.lstrip())
        encoding = declared[1].decode() if declared else "utf-8"
    try:
        return content.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding '{encoding}' is not known; save it as UTF-8") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not {encoding}; save it as UTF-8") from None


def read_xml(file: Path) -> Element:
    """The root of an xml file, with the line of every element.

    A document type is refused, because it can define entities that grow to gigabytes or read other files; annotations
    need none.

    Raises:
        OSError: the file cannot be read.
        InputError: it is not xml, or has a document type; names file and line.
    """
    try:
        with open_regular(file) as stream:
            text = _decode(stream.read())
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    parser = expat.ParserCreate("utf-8")  # whatever the file declares: it has been decoded
    parser.buffer_text = True
    top = Element("", 0)
    open_elements = [top]

    def start(tag: str, _: object) -> None:
        element = Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop()

    def characters(data: str) -> None:
        open_elements[-1].text += data

    def refuse(*_: object) -> None:
        raise InputError(f"{file}:{parser.CurrentLineNumber}: has a DOCTYPE or ENTITY, which is refused; remove it")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        cause = expat.ErrorString(error.code)
        raise InputError(f"{file}:{error.lineno}: not valid xml: {cause} (column {error.offset + 1})") from None
    return top.children[0]


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


class VocLabels:
    """The labels of pictures with an annotation file each.

    Attributes:
        images: the pictures.
        settings: what the labels depend on beside the files.
    """

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
            files: picture -> its annotation file, which need not exist.
            names: the classes; None: everything is class 0.
            drop_difficult: leave out objects marked difficult.
            strict: a name that ``names`` lacks is an error; otherwise such objects are dropped.
        """
        self.images = list(files)
        self.settings = f"voc 1 {None if names is None else list(names)} {drop_difficult} {strict}"
        self._files = dict(files)
        self._names = names
        self._class = {name: i for i, name in reversed(list(enumerate(names or ())))}
        self._drop_difficult = drop_difficult
        self._strict = strict
        self._lock = threading.Lock()
        self._refusal = ""

    def file_for(self, image: Path) -> Path:
        """The annotation file of one of ``images``."""
        return self._files[image]

    def read(self, image: Path, hw: tuple[int, int], nc: int | None) -> LabelFile | None:
        """The labels of one of ``images``, whose height and width are ``hw``; None when there is no file.

        Raises:
            UnreadableLabels: the file is broken, or states another shape of the picture.
            InputError: an object has a name that is no class.
        """
        file = self._files[image]
        try:
            content = read_voc(file)
        except FileNotFoundError:
            return None
        except InputError as error:
            problem = str(error).removeprefix(f"{file}:").strip()
            raise UnreadableLabels(f"line {problem}" if problem[0].isdigit() else problem) from None
        findings: list[Finding] = []
        if content.size_wh is None:
            problem = f"states no size of the picture; its {hw[1]}x{hw[0]} pixels are used"
            findings.append(Finding(NOTE, str(file), problem=problem))
        objects = []
        for item in content.objects:
            cls = 0 if self._names is None else self._class.get(item.name)
            if item.problem:
                findings.append(Finding(BAD_ROW, str(file), item.line, item.value, item.problem, "row dropped"))
            elif item.difficult and self._drop_difficult:
                findings.append(Finding(DIFFICULT, str(file), item.line, item.value, "", "left out"))
            elif cls is not None:
                objects.append(PixelObject(cls, item.line, item.value, item.xyxy))
            elif self._strict:
                self._refuse_unknown()
            else:
                findings.append(Finding(FOREIGN, str(file), item.line, item.value, self._foreign(item), "row dropped"))
        return to_label_file(file, objects, frame(content.size_wh, hw), findings)

    def _foreign(self, item: VocObject) -> str:
        return f"'{item.name}' is not among the names of the data yaml{nearest(item.name, self._class)}"

    def _refuse_unknown(self) -> None:
        """Raise InputError that names the first places of every name that is no class, over all files."""
        with self._lock:  # several threads may come here at once
            if not self._refusal:
                self._refusal = self._describe_unknown()
        raise InputError(self._refusal)

    def _describe_unknown(self) -> str:
        places: dict[str, list[str]] = {}
        for file in self._files.values():
            try:
                objects = read_voc(file).objects
            except (OSError, InputError):
                continue  # reported by the scan, once the names are right
            for item in objects:
                if not item.problem and item.name not in self._class:
                    places.setdefault(item.name, []).append(f"{file}:{item.line}")
        parts = [
            f"{found[0]}: '{name}'{nearest(name, self._class)} ({len(found)} in all)"
            for name, found in list(places.items())[:_SHOWN]
        ]
        more = f" and {len(places) - _SHOWN} more names" if len(places) > _SHOWN else ""
        known = ", ".join((self._names or ())[:20])
        return f"names that the data yaml lacks: {', '.join(parts)}{more}; its names: are {known}"
