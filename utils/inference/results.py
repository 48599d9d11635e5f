"""What a batch of images gave, in the form users of v6.1's ``AutoShape`` know."""

from __future__ import annotations

import base64
import html
import importlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageShow
from torch import Tensor

from utils.config.class_names import ClassNames
from utils.core.boxes import xyxy2xywh
from utils.core.files import increment_path
from utils.core.output import OutputFolder
from utils.core.packages import require
from utils.datasets.sources import Frame
from utils.inference.predictor import ImageDetections
from utils.inference.window import has_display, in_notebook
from utils.inference.writers import Crops, DrawnImages
from utils.plots.crops import crop_box

LOG = logging.getLogger(__name__)
_NOTEBOOK_IMAGES, _NOTEBOOK_SIDE = 8, 640  # of those a notebook shows by itself: how many, and their longest side
_CORNERS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
_CENTRES = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")


@dataclass(frozen=True)
class Tables:
    """One pandas.DataFrame per image and box format; columns ``xmin ymin xmax ymax`` or ``xcenter ycenter width
    height``, then ``confidence class name``."""

    xyxy: list[Any]
    xyxyn: list[Any]
    xywh: list[Any]
    xywhn: list[Any]


@dataclass(frozen=True)
class StageTime:
    """How many seconds a stage took."""

    t: float


class Detections:
    """Detections of several images; those of one image are :class:`utils.inference.predictor.Detections`.

    Attributes:
        imgs, ims: the images, HWC RGB uint8; :meth:`render` draws the boxes into them.
        pred, xyxy: per image [k, 6]: x1 y1 x2 y2 in pixels of the image, confidence, class; best first.
        names: of the classes, as list and as mapping. files: name of each image, ending in ``.jpg``.
        n: number of images, also ``len()``.
        times: pre-processing, inference, suppression of all, each with its seconds ``t``.
        t: the same in milliseconds per image.
        s: shape [B, C, H, W] of the network's input.
    """

    __module__ = "models.common"  # where scripts import it from

    def __init__(
        self,
        imgs: Sequence[np.ndarray],
        pred: Sequence[Tensor],
        files: Sequence[str],
        names: Sequence[str] | Mapping[int, str],
        seconds: tuple[float, ...] = (0.0, 0.0, 0.0),
        shape: tuple[int, ...] = (),
        sources: Sequence[str | Path] = (),
    ) -> None:
        self.imgs, self.pred, self.files, self.names = list(imgs), list(pred), list(files), ClassNames(names)
        self.n, self.s = len(self.imgs), shape
        self.sources = sources  # files that the images were read from: never written over
        self.times = tuple(StageTime(stage) for stage in seconds)
        self.t = tuple(1000 * stage / max(1, self.n) for stage in seconds)

    def __len__(self) -> int:
        return self.n

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return f"Detections\n{self}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the summary, and the images with their boxes."""
        image = base64.b64encode(self._repr_png_()).decode()
        return f'<pre>{html.escape(str(self))}</pre><img src="data:image/png;base64,{image}">'

    def _repr_png_(self) -> bytes:
        """The images with their boxes, one below the other, as a PNG; the first few where there are many."""
        drawn = [Image.fromarray(self._drawn(index)) for index in range(min(self.n, _NOTEBOOK_IMAGES))]
        for image in drawn:
            image.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        sheet = Image.new("RGB", (max((i.width for i in drawn), default=1), sum(i.height for i in drawn) or 1), "white")
        top = 0
        for image in drawn:
            sheet.paste(image, (0, top))
            top += image.height
        content = io.BytesIO()
        sheet.save(content, "PNG")
        return content.getvalue()

    @property
    def ims(self) -> list[np.ndarray]:
        return self.imgs

    @property
    def xyxy(self) -> list[Tensor]:
        return self.pred

    @property
    def xywh(self) -> list[Tensor]:
        """Per image [k, 6] with centre and size in pixels."""
        return [xyxy2xywh(boxes) for boxes in self.pred]

    @property
    def xyxyn(self) -> list[Tensor]:
        """As :attr:`xyxy`, in fractions of the image."""
        return self._fractions(self.xyxy)

    @property
    def xywhn(self) -> list[Tensor]:
        """As :attr:`xywh`, in fractions of the image."""
        return self._fractions(self.xywh)

    def _fractions(self, boxes: list[Tensor]) -> list[Tensor]:
        sizes = [(image.shape[1], image.shape[0]) for image in self.imgs]
        return [rows / rows.new_tensor([w, h, w, h, 1, 1]) for rows, (w, h) in zip(boxes, sizes)]

    def _single(self, index: int) -> tuple[Frame, ImageDetections]:
        """Image ``index`` in the form the writers take: BGR, and named."""
        image, name = self.imgs[index], Path(self.files[index])
        frame = Frame(np.ascontiguousarray(image[..., ::-1]), name, name)
        return frame, ImageDetections(self.pred[index].cpu(), self.names, image.shape[:2])

    def _lines(self) -> list[str]:
        lines = []
        for index, image in enumerate(self.imgs):
            _, found = self._single(index)
            lines.append(f"image {index + 1}/{self.n}: {image.shape[0]}x{image.shape[1]} {found.summary()}")
        before, inference, after = self.t
        per_image = f"{before:.1f} ms pre-process, {inference:.1f} ms inference, {after:.1f} ms NMS per image"
        return [*lines, f"Speed: {per_image} at shape {tuple(self.s)}"]

    def print(self) -> None:
        """Print what was found in each image, and the times."""
        print(self)

    def _drawn(self, index: int, labels: bool = True) -> np.ndarray:
        """HWC RGB copy with the boxes; the width of the lines goes by the size of the image."""
        frame, found = self._single(index)
        bgr = DrawnImages(Path(), line_width=None, hide_labels=not labels).draw(frame, found)
        return np.ascontiguousarray(bgr[..., ::-1])

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes into :attr:`imgs` and return these, HWC RGB."""
        self.imgs = [self._drawn(index, labels) for index in range(self.n)]
        return self.imgs

    def show(self, labels: bool = True) -> None:
        """Show every image with its boxes: in a notebook below its cell, else in the system's image viewer.

        Where there is neither display nor viewer they are saved, and the folder is reported.
        """
        notebook = in_notebook()
        for index, name in enumerate(self.files):
            image = Image.fromarray(self._drawn(index, labels))
            if notebook:
                importlib.import_module("IPython.display").display(image)
            elif not (has_display() and ImageShow.show(image, title=name)):
                LOG.warning("no display to show images on: they are saved in %s", self.save(labels))
                return

    def display(
        self,
        pprint: bool = False,
        show: bool = False,
        save: bool = False,
        crop: bool = False,
        render: bool = False,
        labels: bool = True,
        save_dir: str | Path = "runs/detect/exp",
    ) -> list[dict[str, Any]] | None:
        """Call :meth:`print`, :meth:`show`, :meth:`save`, :meth:`crop` and :meth:`render`; the crops if asked for."""
        if pprint:
            self.print()
        if show:
            self.show(labels)
        if save:
            self.save(labels, save_dir)
        crops = self.crop(save, save_dir) if crop else None
        if render:
            self.render(labels)
        return crops

    def save(self, labels: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool | None = None) -> Path:
        """Write the images with their boxes under their own names, and return the folder.

        Args:
            exist_ok: whether a folder that is there is used; False: a number is added to its name. Left out: the
                default folder, which lies in the working directory, gets a number, any other is used as it is.
        """
        folder = _run_folder(save_dir, exist_ok)
        writer = DrawnImages(OutputFolder(folder, lambda: self.sources))
        written: set[Path] = set()
        for index in range(self.n):
            frame, _ = self._single(index)
            # Images of different folders may have one name.
            path = increment_path(folder / frame.relative, exist_ok=folder / frame.relative not in written, sep="-")
            written.add(path)
            writer.write(
                Frame(frame.image, frame.path, path.relative_to(folder)), self._drawn(index, labels)[..., ::-1].copy()
            )
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool | None = None
    ) -> list[dict[str, Any]]:
        """Cut out every detection, with a small margin; ``save`` writes them to ``<save_dir>/crops/<class>/``.

        ``exist_ok`` as for :meth:`save`.

        Returns:
            One dict per detection: ``box`` [4] xyxy, ``conf``, ``cls``, ``label`` ("dog 0.87"), ``im`` HWC BGR.
        """
        output = OutputFolder(_run_folder(save_dir, exist_ok), lambda: self.sources) if save else None
        # Images without a file are image0 in every call, so what has the same name may be of another image.
        writer = None if output is None else Crops(output.below("crops"), replace=False)
        crops = []
        for index in range(self.n):
            frame, found = self._single(index)
            if writer is not None:
                writer.write(frame, found)
            for row in self.pred[index]:
                label = f"{self.names[int(row[5])]} {float(row[4]):.2f}"
                image = crop_box(frame.image, row[:4].tolist())
                crops.append({"box": row[:4], "conf": row[4], "cls": row[5], "label": label, "im": image})
        return crops

    def pandas(self) -> Tables:
        """The boxes as data frames: ``results.pandas().xyxy[0]``.

        Raises:
            InputError: pandas is not installed; nothing else needs it.
        """
        pandas = require("pandas", "pandas", "results.pandas()")

        def frames(per_picture: list[Tensor], columns: Sequence[str]) -> list[Any]:
            return [pandas.DataFrame(self._rows(boxes), columns=list(columns)) for boxes in per_picture]

        return Tables(
            xyxy=frames(self.xyxy, _CORNERS),
            xyxyn=frames(self.xyxyn, _CORNERS),
            xywh=frames(self.xywh, _CENTRES),
            xywhn=frames(self.xywhn, _CENTRES),
        )

    def _rows(self, boxes: Tensor) -> list[tuple[Any, ...]]:
        return [(*numbers, int(cls), self.names[int(cls)]) for *numbers, cls in boxes.tolist()]

    def tolist(self) -> list[Detections]:
        """One object of this kind per image: ``for result in results.tolist(): ...``."""
        parts = zip(self.imgs, self.pred, self.files)
        each = tuple(stage.t / self.n for stage in self.times)
        return [
            Detections([image], [boxes], [name], self.names, each, self.s, self.sources) for image, boxes, name in parts
        ]


def _run_folder(save_dir: str | Path, exist_ok: bool | None) -> Path:
    """The folder to write to, made; see :meth:`Detections.save` for the number that may be added."""
    same = Path(save_dir) != Path("runs/detect/exp") if exist_ok is None else exist_ok
    return increment_path(save_dir, exist_ok=same, mkdir=True)
