"""Annotations that call their classes by name: what VOC, LabelMe and CVAT files have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from utils.core.errors import InputError, suggestion
from utils.datasets.formats.annotations import NOTE, PixelObject, UnreadableLabels, frame, to_label_file
from utils.datasets.labels.records import BAD_ROW, FOREIGN, Finding, LabelFile

_SHOWN = 10
_NO_OUTLINE = np.zeros((0, 2))


@dataclass(frozen=True)
class Shape:
    """One object of an annotation file.

    Attributes:
        name: what it is. line: where it stands; 0 when unknown. value: the object in a message.
        xyxy: corners in pixels; outline: [m, 2] in pixels, empty where it has none.
        problem: why it cannot be used. excluded: the kind of object that is dropped. note: the kind of object of which
            only the box is used. "" where none of these applies.
    """

    name: str
    line: int
    value: str
    xyxy: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    outline: np.ndarray = field(default_factory=lambda: _NO_OUTLINE)
    problem: str = ""
    excluded: str = ""
    note: str = ""

    @classmethod
    def polygon(cls, name: str, line: int, value: str, points: np.ndarray) -> Shape:
        """The object with the outline ``points`` [m, 2] in pixels."""
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        return cls(name, line, value, (x1, y1, x2, y2), points)


@dataclass(frozen=True)
class FileContent:
    """What an annotation file says of one image; ``size_wh`` is None where it states no size."""

    size_wh: tuple[float, float] | None
    shapes: Sequence[Shape]


class NamedLabels(ABC):
    """The labels of images whose annotations have class names.

    Attributes:
        images: the images. files: the annotation file of each, which need not exist.
        settings: what the labels depend on beside the files.
    """

    kind: ClassVar[str]  # of the files, with the version of the way they are read

    def __init__(self, files: Mapping[Path, Path], names: Sequence[str] | None, strict: bool) -> None:
        """See the classes below; with ``names`` None everything is class 0."""
        self.images = list(files)
        self.files = dict(files)
        self.settings = f"{self.kind} {None if names is None else list(names)} {strict}"
        self._names = names
        # These files are read without the spaces around a name, which the classes may have.
        numbered = list(reversed(list(enumerate(names or ()))))
        self._class = {name.strip(): i for i, name in numbered} | {name: i for i, name in numbered}
        self._strict = strict
        self._lock = threading.Lock()
        self._refusal = ""

    @abstractmethod
    def content_of(self, file: Path, image: Path) -> FileContent:
        """What the annotation file says of an image. May raise OSError and InputError."""

    def file_for(self, image: Path) -> Path:
        """The annotation file of one of ``images``."""
        return self.files[image]

    def read(self, image: Path, hw: tuple[int, int], nc: int | None) -> LabelFile | None:
        """The labels of one of ``images``, whose height and width are ``hw``; None when there is no file.

        Raises:
            UnreadableLabels: the file is broken, or states another shape of the image.
            InputError: an object has a name that is no class.
        """
        file = self.files[image]
        try:
            content = self.content_of(file, image)
        except FileNotFoundError:
            return None
        except InputError as error:
            problem = str(error).removeprefix(f"{file}:").strip()
            raise UnreadableLabels(f"line {problem}" if problem[0].isdigit() else problem) from None
        findings: list[Finding] = []
        if content.size_wh is None:
            problem = f"states no size of the image; its {hw[1]}x{hw[0]} pixels are used"
            findings.append(Finding(NOTE, str(file), problem=problem))
        objects = []
        for item in content.shapes:
            cls = 0 if self._names is None else self._class.get(item.name)
            if item.problem:
                findings.append(Finding(BAD_ROW, str(file), item.line, item.value, item.problem, "row dropped"))
            elif item.excluded:
                findings.append(Finding(item.excluded, str(file), item.line, item.value, "", "dropped"))
            elif cls is not None:
                objects.append(PixelObject(cls, item.line, item.value, item.xyxy, item.outline))
                findings += [Finding(item.note, str(file), item.line, item.value, "", "box used")] * bool(item.note)
            elif self._strict:
                self._refuse_unknown()
            else:
                findings.append(Finding(FOREIGN, str(file), item.line, item.value, self._foreign(item), "row dropped"))
        return to_label_file(file, objects, frame(content.size_wh, hw), findings)

    def all_names(self) -> list[str]:
        """The names of all objects that have a box, sorted; files that cannot be read are passed over."""
        return sorted(self._places())

    def _foreign(self, item: Shape) -> str:
        return f"'{item.name}' is not among the names of the data yaml{suggestion(item.name, self._class)}"

    def _refuse_unknown(self) -> None:
        """Raise InputError that names the first places of every name that is no class, over all files."""
        with self._lock:  # several threads may come here at once
            if not self._refusal:
                self._refusal = self._describe_unknown()
        raise InputError(self._refusal)

    def _places(self) -> dict[str, list[str]]:
        """Name -> where it stands, over all files."""
        places: dict[str, list[str]] = {}
        for image, file in self.files.items():
            try:
                shapes = self.content_of(file, image).shapes
            except (OSError, InputError):
                continue  # reported by the scan
            for item in (item for item in shapes if item.name and not item.problem and not item.excluded):
                places.setdefault(item.name, []).append(f"{file}:{item.line}" if item.line else str(file))
        return places

    def _describe_unknown(self) -> str:
        places = {name: where for name, where in self._places().items() if name not in self._class}
        parts = [
            f"{where[0]}: '{name}'{suggestion(name, self._class)} ({len(where)} in all)"
            for name, where in list(places.items())[:_SHOWN]
        ]
        more = f" and {len(places) - _SHOWN} more names" if len(places) > _SHOWN else ""
        known = ", ".join((self._names or ())[:20])
        return f"names that the data yaml lacks: {', '.join(parts)}{more}; its names: are {known}"
