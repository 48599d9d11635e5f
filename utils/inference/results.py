"""Detections of a batch of images, in the form that users of v6.1's ``AutoShape`` know."""

from __future__ import annotations

import base64
import html
import importlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageShow
from torch import Tensor

from utils.config.class_names import ClassNames
from utils.core.boxes import xyxy2xywh
from utils.core.files import increment_path
from utils.core.output import OutputFolder
from utils.core.packages import import_optional
from utils.datasets.sources import Frame
from utils.inference.predictor import ImageDetections
from utils.inference.window import has_display, in_notebook
from utils.inference.writers import Crops, DrawnImages
from utils.plots.crops import crop_box

LOG = logging.getLogger(__name__)
_NOTEBOOK_IMAGES, _NOTEBOOK_SIDE = 8, 640  # limits of what a notebook shows by itself: images, pixels of a side
_CORNERS, _CENTRES = ("xmin", "ymin", "xmax", "ymax"), ("xcenter", "ycenter", "width", "height")


class Detections:
    """Detections of several images; those of one image are :class:`utils.inference.predictor.ImageDetections`.

    Attributes:
        imgs, ims: the images, HWC RGB uint8; :meth:`render` draws the boxes into them.
        pred, xyxy: per image [k, 6]: x1 y1 x2 y2 in pixels of the image, confidence, class; best first.
        names: of the classes, as list and as mapping.
        files: name of each image, ending in ``.jpg``.
        n: number of images, also ``len()``.
        times: pre-processing, inference and NMS of all images, each with its seconds ``t``.
        t: the same in milliseconds per image.
        s: shape [B, C, H, W] of the network's input.
        sources: files that the images were read from; they are never overwritten.
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
        self.n, self.s, self.sources = len(self.imgs), shape, sources
        self.times = tuple(SimpleNamespace(t=stage) for stage in seconds)
        self.t = tuple(1000 * stage / max(1, self.n) for stage in seconds)

    def __len__(self) -> int:
        return self.n

    def __str__(self) -> str:
        lines = []
        for index, image in enumerate(self.imgs):
            _, detections = self._single(index)
            lines.append(f"image {index + 1}/{self.n}: {image.shape[0]}x{image.shape[1]} {detections.summary()}")
        before, inference, after = self.t
        per_image = f"{before:.1f} ms pre-process, {inference:.1f} ms inference, {after:.1f} ms NMS per image"
        return "\n".join([*lines, f"Speed: {per_image} at shape {tuple(self.s)}"])

    def __repr__(self) -> str:
        return f"Detections\n{self}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the summary, and the images with their boxes."""
        image = base64.b64encode(self._repr_png_()).decode()
        return f'<pre>{html.escape(str(self))}</pre><img src="data:image/png;base64,{image}">'

    def _repr_png_(self) -> bytes:
        """Return the images with their boxes, one below the other, as a PNG; the first few where there are many."""
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
        """Return image ``index`` and its detections in the form the writers take: BGR, and named."""
        image, name = self.imgs[index], Path(self.files[index])
        frame = Frame(np.ascontiguousarray(image[..., ::-1]), name, name)
        return frame, ImageDetections(self.pred[index].cpu(), self.names, image.shape[:2])

    def _drawn(self, index: int, labels: bool = True) -> np.ndarray:
        """Return an HWC RGB copy with the boxes; the line width depends on the size of the image."""
        frame, detections = self._single(index)
        bgr = DrawnImages(Path(), line_width=None, hide_labels=not labels).draw(frame, detections)
        return np.ascontiguousarray(bgr[..., ::-1])

    def print(self) -> None:
        """Print the number of objects in each image, and the times."""
        print(self)

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes into :attr:`imgs` and return these, HWC RGB."""
        self.imgs = [self._drawn(index, labels) for index in range(self.n)]
        return self.imgs

    def show(self, labels: bool = True) -> None:
        """Show every image with its boxes: in a notebook below its cell, else in the system's image viewer.

        Without a display or viewer the images are saved, and the folder is logged.
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
        """Call :meth:`print`, :meth:`show`, :meth:`save`, :meth:`crop` and :meth:`render`; return the crops if any."""
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
            labels: draw class names and confidences.
            save_dir: the folder.
            exist_ok: write into an existing folder; False: add a number to its name. None: False for the default
                folder, which is below the working directory, True for any other.
        """
        output = self._output(save_dir, exist_ok)
        writer, folder, written = DrawnImages(output), output.folder, set[Path]()
        for index in range(self.n):
            frame, _ = self._single(index)
            # Images of different folders may have one name.
            path = increment_path(folder / frame.relative, exist_ok=folder / frame.relative not in written, sep="-")
            written.add(path)
            named = Frame(frame.image, frame.path, path.relative_to(folder))
            writer.write(named, self._drawn(index, labels)[..., ::-1].copy())
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool | None = None
    ) -> list[dict[str, Any]]:
        """Cut out every detection, with a small margin.

        Args:
            save: write the crops to ``<save_dir>/crops/<class>/``.
            save_dir, exist_ok: as for :meth:`save`.

        Returns:
            One dict per detection: ``box`` [4] xyxy, ``conf``, ``cls``, ``label`` ("dog 0.87"), ``im`` HWC BGR.
        """
        # Images without a file are image0 in every call, so a crop of the same name may be of another image.
        writer = Crops(self._output(save_dir, exist_ok).below("crops"), replace=False) if save else None
        crops = []
        for index in range(self.n):
            frame, detections = self._single(index)
            if writer is not None:
                writer.write(frame, detections)
            for row in self.pred[index]:
                label = f"{self.names[int(row[5])]} {float(row[4]):.2f}"
                image = crop_box(frame.image, row[:4].tolist())
                crops.append({"box": row[:4], "conf": row[4], "cls": row[5], "label": label, "im": image})
        return crops

    def _output(self, save_dir: str | Path, exist_ok: bool | None) -> OutputFolder:
        """Make the folder to write to; see :meth:`save` for the number that may be added."""
        same = Path(save_dir) != Path("runs/detect/exp") if exist_ok is None else exist_ok
        return OutputFolder(increment_path(save_dir, exist_ok=same, mkdir=True), lambda: self.sources)

    def pandas(self) -> SimpleNamespace:
        """Return the boxes as data frames, one per image: ``results.pandas().xyxy[0]``.

        Returns:
            ``xyxy``, ``xyxyn`` with columns ``xmin ymin xmax ymax``, and ``xywh``, ``xywhn`` with columns ``xcenter
            ycenter width height``, each followed by ``confidence class name``.

        Raises:
            InputError: pandas is not installed; nothing else needs it.
        """
        pandas = import_optional("pandas", "pandas", "results.pandas()")

        def frames(per_image: list[Tensor], columns: Sequence[str]) -> list[Any]:
            named = [*columns, "confidence", "class", "name"]
            return [
                pandas.DataFrame(
                    [(*row, int(cls), self.names[int(cls)]) for *row, cls in boxes.tolist()], columns=named
                )
                for boxes in per_image
            ]

        return SimpleNamespace(
            xyxy=frames(self.xyxy, _CORNERS),
            xyxyn=frames(self.xyxyn, _CORNERS),
            xywh=frames(self.xywh, _CENTRES),
            xywhn=frames(self.xywhn, _CENTRES),
        )

    def tolist(self) -> list[Detections]:
        """Return one object of this class per image: ``for result in results.tolist(): ...``."""
        each = tuple(stage.t / self.n for stage in self.times)
        return [
            Detections([image], [boxes], [name], self.names, each, self.s, self.sources)
            for image, boxes, name in zip(self.imgs, self.pred, self.files)
        ]
