"""Output files of detections: drawn images, label files, crops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from utils.core.files import write_atomic
from utils.core.image import jpeg_comment, write_image
from utils.core.names import file_names
from utils.core.output import OutputFolder
from utils.datasets.labels.yolo_text import yolo_detection_text
from utils.datasets.sources import Frame
from utils.inference.predictor import ImageDetections
from utils.plots.annotate import Annotator, color_for
from utils.plots.crops import crop_box
from utils.plots.names import drawn_name

_CROP_OF = b"crop of "  # begins the comment in a crop; the name of the image follows


class DrawnImages:
    """Images with boxes drawn in, under their own names below ``folder`` (sub-folders of the source are kept).

    Args:
        folder: of the images.
        line_width: of the boxes in pixels; None: depends on the size of the image.
        hide_labels: draw boxes only.
        hide_conf: draw class names without confidence.
    """

    def __init__(
        self,
        folder: Path | OutputFolder,
        line_width: int | None = 3,
        hide_labels: bool = False,
        hide_conf: bool = False,
    ) -> None:
        self.folder, self.line_width = OutputFolder.of(folder), line_width
        self.hide_labels, self.hide_conf = hide_labels, hide_conf

    def draw(self, frame: Frame, detections: ImageDetections) -> np.ndarray:
        """Return a copy of the image with the boxes; the most confident are drawn last, on top."""
        annotator = Annotator(frame.image, line_width=self.line_width)
        for *xyxy, conf, cls in reversed(detections.boxes.tolist()):
            name = drawn_name(detections.names, int(cls), longest=None)
            label = "" if self.hide_labels else name if self.hide_conf else f"{name} {conf:.2f}"
            annotator.box_label(xyxy, label, color=color_for(int(cls)))
        return annotator.result()

    def write(self, frame: Frame, drawn: np.ndarray) -> Path:
        """Write a drawn image and return its path."""
        name = frame.relative
        if name.suffix.lower() not in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"):
            name = name.with_name(f"{name.name}.jpg")  # camera formats are read only
        path = self.folder.path(name)
        write_image(path, drawn)
        return path


class TextLabels:
    """A text file per image with detections: class, centre x, y, width, height as fractions, on request confidence.

    For an image without detections, the file of an earlier run is removed.

    ``a.jpg`` -> ``a.txt``; frame 7 of ``a.mp4`` -> ``a_7.txt``; a second ``a.png`` beside ``a.jpg`` -> ``a.png.txt``.
    """

    def __init__(self, folder: Path | OutputFolder, with_conf: bool = False) -> None:
        self.folder, self.with_conf = OutputFolder.of(folder), with_conf
        self._first: dict[Path, Path] = {}  # name without suffix -> the first image of this name

    def write(self, frame: Frame, detections: ImageDetections) -> None:
        bare = frame.relative.with_suffix("")
        if self._first.setdefault(bare, frame.relative) != frame.relative:
            bare = frame.relative
        name = bare.with_name(f"{bare.name}{f'_{frame.number}' if frame.clip else ''}.txt")
        if len(detections):
            text = yolo_detection_text(detections.boxes, detections.hw, self.with_conf)
            write_atomic(self.folder.path(name), text.encode(), durable=False)
        elif os.path.lexists(self.folder.folder / name):
            self.folder.path(name).unlink()


class Crops:
    """A small image of each detection: ``folder/<class>/<image>.jpg``, numbered from the second on.

    No crop overwrites another: the twelfth of ``a`` and the second of ``a1`` would both be ``a12``. With ``replace``
    the crops that an earlier run made of the same image are removed; a comment in each file names the image.
    """

    def __init__(self, folder: Path | OutputFolder, replace: bool = True) -> None:
        self.folder = OutputFolder.of(folder)
        self._used: dict[Path, int] = {}
        self._names: dict[str, str] = {}
        self._earlier = _crops_by_comment(self.folder.folder) if replace else {}

    def write(self, frame: Frame, detections: ImageDetections) -> None:
        comment = _CROP_OF + os.fsencode(frame.relative)
        for path in self._earlier.pop(comment, ()):
            path.unlink(missing_ok=True)
        self._names = self._names or file_names(map(str, detections.names))
        for *xyxy, _, cls in detections.boxes.tolist():
            crop = crop_box(frame.image, xyxy)
            if crop.size == 0:
                continue
            stem = Path(self._names[str(detections.names[int(cls)])], frame.relative.with_suffix("").name)
            write_image(self.folder.path(self._unused(stem)), crop, comment)

    def _unused(self, stem: Path) -> Path:
        number = self._used.get(stem, 0) + 1
        while os.path.lexists(self.folder.folder / (name := _numbered(stem, number))):
            number += 1
        self._used[stem] = number
        return name


def _numbered(stem: Path, number: int) -> Path:
    return stem.with_name(f"{stem.name}{number if number > 1 else ''}.jpg")


def _crops_by_comment(folder: Path) -> dict[bytes, list[Path]]:
    """Return the crops below ``folder`` by the comment in them; links, and files without a comment, are excluded."""
    crops: dict[bytes, list[Path]] = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        for file in entry.glob("*.jpg") if entry.is_dir() and not entry.is_symlink() else ():
            regular = file.is_file() and not file.is_symlink()
            if regular and (comment := jpeg_comment(file)).startswith(_CROP_OF):
                crops.setdefault(comment, []).append(file)
    return crops
