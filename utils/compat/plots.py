"""Names of ``utils.plots`` of YOLOv5 v6.1, with its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from utils.core.boxes import xyxy2xywh
from utils.core.errors import InputError
from utils.core.files import increment_path
from utils.core.image import write_image
from utils.core.output import OutputFolder
from utils.plots import annotate
from utils.plots.annotate import Color, color_for
from utils.plots.batches import plot_batch
from utils.plots.crops import crop_box
from utils.plots.features import save_feature_map
from utils.plots.study import StudyLine, plot_study

_PALETTE_SIZE = 20
_LARGEST_FRACTION = 1.01  # boxes with larger values are in pixels
_STUDY_SIZES = tuple(range(256, 1536 + 128, 128))


class Colors:
    """``colors(i)``: the colour of a class as (r, g, b), with ``bgr`` as (b, g, r); ``palette`` has all ``n``."""

    def __init__(self) -> None:
        self.palette: list[Color] = [self._rgb(i) for i in range(_PALETTE_SIZE)]
        self.n = len(self.palette)

    def __call__(self, i: int | float, bgr: bool = False) -> Color:
        return color_for(int(i)) if bgr else self._rgb(int(i))

    @staticmethod
    def _rgb(i: int) -> Color:
        blue, green, red = color_for(i)
        return red, green, blue

    @staticmethod
    def hex2rgb(h: str) -> Color:
        """ "#ff8000" -> (255, 128, 0)."""
        red, green, blue = bytes.fromhex(h.removeprefix("#"))
        return red, green, blue


colors = Colors()


class Annotator:
    """Draws boxes into an image, in place if its memory is writable and contiguous.

    Args:
        im: HWC uint8, any channel order, or a PIL image. Colours are given in the same order.
        line_width: pixels; None: by the size of the image.
        font_size: height of the letters in pixels; None: by the size of the image.
        font, pil, example: without effect; the font is chosen by the text.
    """

    def __init__(
        self,
        im: np.ndarray | Image.Image,
        line_width: int | None = None,
        font_size: float | None = None,
        font: str = "Arial.ttf",
        pil: bool = False,
        example: str = "abc",
    ) -> None:
        array = np.asarray(im.convert("RGB")) if isinstance(im, Image.Image) else im
        drawable = array.flags.writeable and array.flags.c_contiguous
        self.im = array if drawable else np.array(array, order="C")
        size = None if font_size is None else round(font_size)
        self._pen = annotate.Annotator(self.im, line_width and round(line_width), size, in_place=True)
        self.lw = self._pen.line_width

    def box_label(
        self,
        box: Sequence[float] | Any,
        label: str = "",
        color: Sequence[int] = (128, 128, 128),
        txt_color: Sequence[int] = (255, 255, 255),
    ) -> None:
        """Draw a box, xyxy in pixels, and its label.

        ``txt_color`` has no effect: letters are black or white, whichever is easier to read on ``color``.
        """
        corners = [float(value) for value in box]
        self._pen.box_label(corners, label, color=(int(color[0]), int(color[1]), int(color[2])))

    def text(self, xy: Sequence[float], text: str, txt_color: Sequence[int] = (255, 255, 255)) -> None:
        """Draw a text with its top left corner at (x, y) on a dark strip; ``txt_color`` has no effect."""
        self._pen.text(int(xy[0]), int(xy[1]), text)

    def result(self) -> np.ndarray:
        """Return the image with everything drawn so far."""
        return self._pen.result()


def plot_one_box(
    x: Sequence[float] | Any,
    img: np.ndarray,
    color: Sequence[int] | None = None,
    label: str | None = None,
    line_thickness: int | None = None,
) -> None:
    """Draw one box, xyxy in pixels, into an image, in place (the name of v5)."""
    Annotator(img, line_width=line_thickness).box_label(x, label or "", color or (128, 128, 128))


def save_one_box(
    xyxy: Sequence[float] | Any,
    im: np.ndarray,
    file: str | Path = "image.jpg",
    gain: float = 1.02,
    pad: float = 10,
    square: bool = False,
    BGR: bool = False,
    save: bool = True,
) -> np.ndarray:
    """Cut a box out of an image and write it as a ``.jpg``, numbered when the name is taken.

    Args:
        xyxy: corners in pixels.
        im: HWC uint8, in BGR order with ``BGR``, else RGB.
        gain, pad, square: see :func:`utils.plots.crops.crop_box`.
        save: False only cuts.

    Returns:
        The crop, HWC BGR.
    """
    corners = xyxy.reshape(-1) if hasattr(xyxy, "reshape") else xyxy  # an array or tensor may be [1, 4]
    crop = crop_box(im, [float(value) for value in corners], gain, pad, square)
    crop = np.ascontiguousarray(crop if BGR else crop[..., ::-1])
    if save and crop.size:
        path = Path(file).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(increment_path(path), crop)
    return crop


def feature_visualization(
    x: Tensor, module_type: str, stage: int, n: int = 32, save_dir: str | Path = "runs/detect/exp"
) -> None:
    """Write the first ``n`` channels of the first feature map of ``x`` [B, C, H, W] as an image, and all as ``.npy``.

    The output of the head, and feature maps of a single cell are skipped.
    """
    if "Detect" not in module_type and x.ndim == 4 and x.shape[2] * x.shape[3] > 1:
        stem = f"stage{stage}_{module_type.rpartition('.')[2]}_features"
        save_feature_map(x[0], OutputFolder(Path(save_dir)), stem, n)


def output_to_target(output: Sequence[Tensor]) -> np.ndarray:
    """Convert the detections of each image [n, 6] (corners, confidence, class) to rows [N, 7] for ``plot_images``:
    image, class, xywh, confidence."""
    rows = [np.zeros((0, 7), np.float32)]
    for number, detections in enumerate(output):
        array = detections.detach().float().cpu().numpy()
        image = np.full((len(array), 1), number, np.float32)
        rows.append(np.hstack((image, array[:, 5:6], xyxy2xywh(array[:, :4]), array[:, 4:5])))
    return np.concatenate(rows)


def plot_images(
    images: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    paths: Sequence[str] | None = None,
    fname: str | Path = "images.jpg",
    names: Sequence[str] | Mapping[int, str] | None = None,
    max_size: int = 1920,
    max_subplots: int = 16,
) -> None:
    """Write images [B, 3, H, W] RGB, uint8 or 0..1, with their boxes as one grid.

    Args:
        targets: [N, 6] image, class, xywh, or [N, 7] with a confidence; boxes as fractions or in pixels.
        names: class names.
        max_size: longest side of the grid in pixels.
        max_subplots: most images in the grid.
    """
    rows = targets.detach().float().cpu().numpy().copy() if isinstance(targets, Tensor) else np.array(targets, float)
    rows = rows.reshape(-1, rows.shape[-1] if rows.size else 6)
    if rows.size and rows[:, 2:6].max() > _LARGEST_FRACTION:
        height, width = images.shape[2:]
        rows[:, 2:6] /= (width, height, width, height)
    plot_batch(images, rows, list(paths or ()), Path(fname), _listed(names), max_subplots, max_size)


def _listed(names: Sequence[str] | Mapping[int, str] | None) -> list[str]:
    if isinstance(names, Mapping):
        return [str(names.get(i, i)) for i in range(max(names, default=-1) + 1)]
    return list(names or ())


def plot_val_study(file: str | Path = "", dir: str | Path = "", x: Sequence[int] | None = None) -> None:
    """Draw ``study*.txt`` of ``val.py --task study``, one or all of a folder: ``study.png`` there.

    Args:
        x: image sizes of the rows; None: 256, 384, ...

    Raises:
        InputError: no such file.
    """
    folder = Path(dir) if dir else Path(file).absolute().parent
    files = [Path(file)] if file else sorted(folder.glob("study*.txt"))
    if not files:
        raise InputError(f"{folder}: no study*.txt in it; val.py --task study writes them")
    lines = []
    for table in files:
        rows = np.loadtxt(table, dtype=np.float64, ndmin=2)[:, :10]  # P, R, mAP50, mAP, 3 losses, 3 times
        sizes = list(x or _STUDY_SIZES)[: len(rows)]
        name, milliseconds = table.stem.rpartition("_")[2], rows[:, 8:10].sum(1).tolist()
        lines.append(StudyLine(name, "dynamic" in table.stem, sizes, rows[:, 3].tolist(), milliseconds))
    plot_study(lines, folder / "study.png")
