"""Where detections go: drawn images, label files, crops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from utils.core.files import write_atomic
from utils.core.image import jpeg_comment, write_image
from utils.core.names import file_names
from utils.core.output import OutputFolder
from utils.datasets.label_text import label_text
from utils.datasets.sources import Frame
from utils.inference.predictor import Detections
from utils.plots.annotate import Annotator, color_for
from utils.plots.crops import crop_box
from utils.plots.names import drawn_name

_OWNER = b"crop of "  # begins the comment of a crop; the name of the image follows


class DrawnImages:
    """Images with boxes drawn in, under their own names below ``folder`` (sub-folders of the source are kept)."""

    def __init__(
        self,
        folder: Path | OutputFolder,
        line_width: int | None = 3,
        hide_labels: bool = False,
        hide_conf: bool = False,
    ) -> None:
        self.folder, self.line_width = OutputFolder.of(folder), line_width
        self.hide_labels, self.hide_conf = hide_labels, hide_conf

    def draw(self, frame: Frame, found: Detections) -> np.ndarray:
        """A copy of the image with the boxes; the most confident are drawn last, on top."""
        annotator = Annotator(frame.image, line_width=self.line_width)
        for *xyxy, conf, cls in reversed(found.boxes.tolist()):
            name = drawn_name(found.names, int(cls), longest=None)
            label = "" if self.hide_labels else name if self.hide_conf else f"{name} {conf:.2f}"
            annotator.box_label(xyxy, label, color=color_for(int(cls)))
        return annotator.result()

    def write(self, frame: Frame, drawn: np.ndarray) -> Path:
        name = frame.relative
        if name.suffix.lower() not in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"):
            name = name.with_name(f"{name.name}.jpg")  # camera formats are read only
        path = self.folder.path(name)
        write_image(path, drawn)
        return path


class TextLabels:
    """A text file per image with detections: class, centre x, y, width, height as fractions, confidence if asked.

    Of an image without any, the file of an earlier run is removed.

    ``a.jpg`` -> ``a.txt``; frame 7 of ``a.mp4`` -> ``a_7.txt``; a second ``a.png`` beside ``a.jpg`` -> ``a.png.txt``.
    """

    def __init__(self, folder: Path | OutputFolder, with_conf: bool = False) -> None:
        self.folder, self.with_conf = OutputFolder.of(folder), with_conf
        self._owner: dict[Path, Path] = {}  # of each name without suffix: the file that had it first

    def write(self, frame: Frame, found: Detections) -> None:
        bare = frame.relative.with_suffix("")
        if self._owner.setdefault(bare, frame.relative) != frame.relative:
            bare = frame.relative
        name = bare.with_name(f"{bare.name}{f'_{frame.number}' if frame.clip else ''}.txt")
        if len(found) == 0 and not os.path.lexists(self.folder.folder / name):
            return
        path = self.folder.path(name)
        if len(found) == 0:
            path.unlink()
            return
        write_atomic(path, label_text(found.boxes, found.hw, self.with_conf).encode(), durable=False)


class Crops:
    """Each detection as an image of its own: ``folder/<class>/<image>.jpg``, numbered from the second on.

    None takes the place of another: the twelfth of ``a`` and the second of ``a1`` would both be ``a12``. With
    ``replace`` those that an earlier run cut out of the same image are removed; a comment in each file says which
    image that is.
    """

    def __init__(self, folder: Path | OutputFolder, replace: bool = True) -> None:
        self.folder = OutputFolder.of(folder)
        self._used: dict[Path, int] = {}
        self._names: dict[str, str] = {}
        self._earlier = _crops_by_owner(self.folder.folder) if replace else {}

    def write(self, frame: Frame, found: Detections) -> None:
        owner = _OWNER + os.fsencode(frame.relative)
        for path in self._earlier.pop(owner, ()):
            path.unlink(missing_ok=True)
        self._names = self._names or file_names(map(str, found.names))
        for *xyxy, _, cls in found.boxes.tolist():
            crop = crop_box(frame.image, xyxy)
            if crop.size == 0:
                continue
            stem = Path(self._names[str(found.names[int(cls)])], frame.relative.with_suffix("").name)
            write_image(self.folder.path(self._free(stem)), crop, owner)

    def _free(self, stem: Path) -> Path:
        number = self._used.get(stem, 0) + 1
        while os.path.lexists(self.folder.folder / (name := _numbered(stem, number))):
            number += 1
        self._used[stem] = number
        return name


def _numbered(stem: Path, number: int) -> Path:
    return stem.with_name(f"{stem.name}{number if number > 1 else ''}.jpg")


def _crops_by_owner(folder: Path) -> dict[bytes, list[Path]]:
    """The crops below ``folder`` by the comment in them; files without one and links are nobody's."""
    found: dict[bytes, list[Path]] = {}
    classes = (
        [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()] if folder.is_dir() else []
    )
    for file in (file for entry in classes for file in entry.glob("*.jpg") if file.is_file() and not file.is_symlink()):
        if (comment := jpeg_comment(file)).startswith(_OWNER):
            found.setdefault(comment, []).append(file)
    return found
