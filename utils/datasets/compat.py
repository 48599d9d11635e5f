"""Names about pictures and labels that scripts written for YOLOv5 v6.1 import from ``utils.datasets``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.datasets.sources import ImageSource
from utils.errors import InputError
from utils.files import IMAGE_SUFFIXES, label_path_for
from utils.image import letterbox

LOG = logging.getLogger(__name__)
IMG_FORMATS = sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
VID_FORMATS: list[str] = []  # there is no reader of videos so far


class LoadImages:
    """Pictures ready for a model, one by one.

    Args:
        path: picture, folder, pattern or ``.txt`` list.
        img_size: longest side of the model's input in pixels.
        stride: of the model.
        auto: as little margin as the stride allows; False: a square.

    Attributes:
        files: the paths. nf: their number, also ``len()``. mode: "image". cap: None, there are no videos.

    Raises:
        FileNotFoundError, InputError: no picture there.
    """

    mode = "image"
    cap = None

    def __init__(self, path: str | Path, img_size: int = 640, stride: int = 32, auto: bool = True) -> None:
        self._source = ImageSource(str(path))
        self.img_size, self.stride, self.auto = img_size, stride, auto
        self.files = [str(file) for file in self._source.paths]
        self.nf = len(self.files)

    def __len__(self) -> int:
        return self.nf

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray, None, str]]:
        """(path, letterboxed CHW RGB, picture HWC BGR, None, text for the log); unreadable files are logged."""
        before = len(self._source.skipped)
        for found, frame in enumerate(self._source, start=1):
            boxed, _, _ = letterbox(frame.image, self.img_size, stride=self.stride, auto=self.auto)
            chw = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
            number = found + len(self._source.skipped) - before
            yield str(frame.path), chw, frame.image, None, f"image {number}/{self.nf} {frame.path}: "
        for problem in self._source.skipped[before:]:
            LOG.warning("skipped: %s", problem)


class LoadStreams:
    """Cameras and streams, which cannot be read so far: the name is there for scripts that import it beside
    :class:`LoadImages`, and making one raises InputError."""

    def __init__(self, sources: str = "streams.txt", img_size: int = 640, stride: int = 32, auto: bool = True) -> None:
        raise InputError(f"source '{sources}': cameras and streams cannot be read so far; use LoadImages on pictures")


def exif_size(img: Image.Image) -> tuple[int, int]:
    """(width, height) of a PIL picture once it is turned upright by its EXIF orientation."""
    return ImageOps.exif_transpose(img).size


def img2label_paths(img_paths: Sequence[str]) -> list[str]:
    """The label file of each picture."""
    return [str(label_path_for(path)) for path in img_paths]
