"""Drawing under the names and with the calls of YOLOv5 v6.1, for other people's scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.core.files import increment_path
from utils.core.image import write_image
from utils.plots import annotate
from utils.plots.annotate import Color, color_for
from utils.plots.crops import crop_box


def colors(i: int | float, bgr: bool = False) -> Color:
    """The colour of a class as (r, g, b), or as (b, g, r)."""
    blue, green, red = color_for(int(i))
    return (blue, green, red) if bgr else (red, green, blue)


class Annotator:
    """Draws boxes into an image, in place where its memory allows.

    Args:
        im: HWC uint8, any channel order, or a PIL image. Colours are given in its order.
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
        """One box, xyxy in pixels, and its label. ``txt_color`` has no effect: the letters are black or white,
        whichever can be read on ``color``."""
        corners = [float(value) for value in box]
        self._pen.box_label(corners, label, color=(int(color[0]), int(color[1]), int(color[2])))

    def text(self, xy: Sequence[float], text: str, txt_color: Sequence[int] = (255, 255, 255)) -> None:
        """A text whose top left corner is at (x, y), on a dark strip; ``txt_color`` has no effect."""
        self._pen.text(int(xy[0]), int(xy[1]), text)

    def result(self) -> np.ndarray:
        """The image with everything drawn so far."""
        return self._pen.result()


def plot_one_box(
    x: Sequence[float] | Any,
    img: np.ndarray,
    color: Sequence[int] | None = None,
    label: str | None = None,
    line_thickness: int | None = None,
) -> None:
    """Draw one box, xyxy in pixels, into an image, in place (v5's way)."""
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
        im: HWC uint8, BGR as the argument of that name says, else RGB.
        gain, pad, square: see :func:`utils.plots.crops.crop_box`.
        save: False only cuts.

    Returns:
        The part, HWC BGR.
    """
    corners = xyxy.reshape(-1) if hasattr(xyxy, "reshape") else xyxy  # an array or tensor may be [1, 4]
    part = crop_box(im, [float(value) for value in corners], gain, pad, square)
    part = np.ascontiguousarray(part if BGR else part[..., ::-1])
    if save and part.size:
        path = Path(file).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(increment_path(path), part)
    return part
