"""Where detections go: drawn pictures, label files, crops."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from utils.datasets.label_text import label_text
from utils.datasets.sources import Frame
from utils.image import write_image
from utils.inference.predictor import Detections
from utils.plots.annotate import Annotator, color_for
from utils.plots.crops import crop_box
from utils.plots.names import drawn_name


class DrawnImages:
    """Pictures with boxes drawn in, under their own names below ``folder`` (sub-folders of the source are kept)."""

    def __init__(
        self, folder: Path, line_width: int | None = 3, hide_labels: bool = False, hide_conf: bool = False
    ) -> None:
        self.folder, self.line_width = folder, line_width
        self.hide_labels, self.hide_conf = hide_labels, hide_conf

    def draw(self, frame: Frame, found: Detections) -> np.ndarray:
        """A copy of the picture with the boxes; the most confident are drawn last, on top."""
        annotator = Annotator(frame.image, line_width=self.line_width)
        for *xyxy, conf, cls in reversed(found.boxes.tolist()):
            name = drawn_name(found.names, int(cls), longest=None)
            label = "" if self.hide_labels else name if self.hide_conf else f"{name} {conf:.2f}"
            annotator.box_label(xyxy, label, color=color_for(int(cls)))
        return annotator.result()

    def write(self, frame: Frame, drawn: np.ndarray) -> Path:
        path = self.folder / frame.relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"):
            path = path.with_name(f"{path.name}.jpg")  # camera formats are read only
        write_image(path, drawn)
        return path


class TextLabels:
    """A text file per picture with detections: class, centre x, y, width, height as fractions, confidence if asked.

    ``a.jpg`` -> ``a.txt``; frame 7 of ``a.mp4`` -> ``a_7.txt``; a second ``a.png`` beside ``a.jpg`` -> ``a.png.txt``.
    """

    def __init__(self, folder: Path, with_conf: bool = False) -> None:
        self.folder, self.with_conf = folder, with_conf
        self._owner: dict[Path, Path] = {}  # of each name without suffix: the file that had it first

    def write(self, frame: Frame, found: Detections) -> None:
        if len(found) == 0:
            return
        bare = frame.relative.with_suffix("")
        if self._owner.setdefault(bare, frame.relative) != frame.relative:
            bare = frame.relative
        path = self.folder / bare.with_name(f"{bare.name}{f'_{frame.number}' if frame.clip else ''}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(label_text(found.boxes, found.hw, self.with_conf), encoding="utf-8")


class Crops:
    """Each detection as a picture of its own: ``folder/<class>/<picture>.jpg``, numbered from the second on.

    None takes the place of another: the twelfth of ``a`` and the second of ``a1`` would both be ``a12``.
    """

    def __init__(self, folder: Path, gain: float = 1.02, pad: int = 10) -> None:
        self.folder, self.gain, self.pad = folder, gain, pad
        self._used: dict[Path, int] = {}

    def write(self, frame: Frame, found: Detections) -> None:
        for *xyxy, _, cls in found.boxes.tolist():
            crop = crop_box(frame.image, xyxy, self.gain, self.pad)
            if crop.size == 0:
                continue
            folder = self.folder / safe_name(found.names[int(cls)])
            path = self._free(folder / frame.relative.with_suffix("").name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, crop)

    def _free(self, stem: Path) -> Path:
        number = self._used.get(stem, 0) + 1
        while (path := stem.with_name(f"{stem.name}{number if number > 1 else ''}.jpg")).exists():
            number += 1
        self._used[stem] = number
        return path


def safe_name(name: str) -> str:
    """A class name as a folder name: nothing that leaves the folder or that a file system refuses."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name).strip(". ") or "_"
