"""Names of ``utils.datasets`` of YOLOv5 v6.1 for inference, and tools around data sets."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import ImageOps

from utils.config.dataset_spec import SPLITS
from utils.core.errors import InputError
from utils.core.files import IMAGE_SUFFIXES, find_images, label_path_for
from utils.core.image import letterbox
from utils.datasets.sources import VIDEO_SUFFIXES, FileSource, LiveSource, ScreenSource, open_source

LOG = logging.getLogger(__name__)
IMG_FORMATS = sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES - VIDEO_SUFFIXES)
VID_FORMATS = sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES)

exif_transpose = ImageOps.exif_transpose

Item: TypeAlias = tuple[str, np.ndarray, np.ndarray, Any, str]  # path, CHW RGB, HWC BGR, reader or None, log text
Items: TypeAlias = tuple[list[str], np.ndarray, list[np.ndarray], None, str]  # the same for several streams


class LoadImages:
    """Images and video frames, letterboxed for a model, one by one.

    Args:
        path: image, video, folder, pattern or ``.txt`` list.
        img_size: longest side of the model's input in pixels.
        stride: of the model.
        auto: pad to the next multiple of the stride; False: to a square.
        vid_stride: use every such frame of a video.

    Attributes:
        files: the paths.
        nf: number of paths, also ``len()``.
        mode: "image" or "video", of the latest item.
        frame: number of its frame, from 1.
        cap: the reader of its video, or None.

    Raises:
        FileNotFoundError, InputError: no image and no video there.
    """

    def __init__(
        self, path: str | Path, img_size: int = 640, stride: int = 32, auto: bool = True, vid_stride: int = 1
    ) -> None:
        self._source = FileSource(str(path), vid_stride)
        self.img_size, self.stride, self.auto = img_size, stride, auto
        self.files = [str(file) for file in self._source.paths]
        self.nf = len(self.files)
        self.mode, self.frame = "image", 0
        self.cap: Any = None

    def __len__(self) -> int:
        return self.nf

    def __iter__(self) -> Iterator[Item]:
        """Yield (path, letterboxed CHW RGB, image HWC BGR, video reader or None, text for the log).

        Files that cannot be read are logged at the end.
        """
        before = len(self._source.skipped.lines)
        place = {file: number for number, file in enumerate(self.files, start=1)}
        for frame in self._source:
            self.mode, self.frame = "video" if frame.clip else "image", frame.number
            self.cap = self._source.video.capture if self._source.video else None
            text = f"{self.mode} {place[str(frame.path)]}/{self.nf} "
            text += f"({frame.number}/{frame.clip.frames}) " if frame.clip else ""
            chw = _letterboxed_chw(frame.image, self.img_size, self.stride, self.auto)
            yield str(frame.path), chw, frame.image, self.cap, f"{text}{frame.path}: "
        for problem in self._source.skipped.lines[before:]:
            LOG.warning("skipped: %s", problem)


class LoadStreams:
    """The newest frames of cameras and streams, all together, without end.

    Args:
        sources: address, camera number, or ``.txt`` or ``.streams`` list of them.
        img_size, stride, auto: as for :class:`LoadImages`.

    Attributes:
        sources: the addresses; their number is ``len()``.
        mode: "stream".

    Raises:
        InputError: no stream there, or images instead.
    """

    mode = "stream"

    def __init__(self, sources: str = "streams.txt", img_size: int = 640, stride: int = 32, auto: bool = True) -> None:
        opened = open_source(str(sources))
        if not isinstance(opened, LiveSource):
            raise InputError(f"source '{sources}': not a camera, stream or list of them; use LoadImages")
        self._source = opened
        self.sources = [reader.title for reader in opened.readers]
        self.img_size, self.stride, self.auto = img_size, stride, auto

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Items]:
        """Yield (addresses, letterboxed [n, 3, h, w] RGB, images HWC BGR, None, "") whenever an image is new.

        The first item comes when every stream has sent an image or has ended. The last image of a stream that ended
        is repeated; a stream that sent nothing is black. The iteration ends with the last stream.
        """
        newest: dict[str, np.ndarray] = {}
        try:
            for batch in self._source.batches():
                newest |= {frame.title: frame.image for frame in batch}
                if all(reader.title in newest or reader.ended for reader in self._source.readers):
                    black = np.zeros_like(batch[0].image)
                    images = [newest.get(title, black) for title in self.sources]
                    auto = self.auto and len({image.shape for image in images}) == 1
                    inputs = [_letterboxed_chw(image, self.img_size, self.stride, auto) for image in images]
                    yield list(self.sources), np.stack(inputs), images, None, ""
        finally:
            self._source.close()


class LoadWebcam:
    """The images of one camera, mirrored, without end.

    Args:
        pipe: camera number, address, or file that is played like a camera.
        img_size, stride: as for :class:`LoadImages`.
    """

    mode = "webcam"

    def __init__(self, pipe: str = "0", img_size: int = 640, stride: int = 32) -> None:
        self._source = LiveSource([str(pipe)])
        self.img_size, self.stride = img_size, stride

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Item]:
        """Yield ("webcam.jpg", letterboxed CHW RGB, image HWC BGR, None, text for the log)."""
        try:
            for frame in self._source:
                mirrored = np.ascontiguousarray(frame.image[:, ::-1])
                chw = _letterboxed_chw(mirrored, self.img_size, self.stride, True)
                yield "webcam.jpg", chw, mirrored, None, f"webcam {frame.number}: "
        finally:
            self._source.close()


class LoadScreenshots:
    """What is on the screen, without end; needs the package mss.

    Args:
        source: ``screen [number [left top width height]]``.
        img_size, stride, auto: as for :class:`LoadImages`.
    """

    mode = "stream"

    def __init__(self, source: str = "screen", img_size: int = 640, stride: int = 32, auto: bool = True) -> None:
        self._source = ScreenSource(source)
        self.img_size, self.stride, self.auto = img_size, stride, auto

    def __iter__(self) -> Iterator[Item]:
        """Yield (name, letterboxed CHW RGB, image HWC BGR, None, text for the log)."""
        for frame in self._source:
            chw = _letterboxed_chw(frame.image, self.img_size, self.stride, self.auto)
            yield frame.title, chw, frame.image, None, f"{frame.title}: "


def _letterboxed_chw(image: np.ndarray, side: int, stride: int, auto: bool) -> np.ndarray:
    """HWC BGR, any size -> letterboxed CHW RGB."""
    boxed, _, _ = letterbox(image, side, stride=stride, auto=auto)
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))


def img2label_paths(img_paths: Sequence[str]) -> list[str]:
    """Path of the label file of each image."""
    return [str(label_path_for(path)) for path in img_paths]


def autosplit(
    path: str | Path = "../datasets/coco128/images",
    weights: Sequence[float] = (0.9, 0.1, 0.0),
    annotated_only: bool = False,
) -> None:
    """Split the images of a folder at random: ``autosplit_train.txt``, ``_val`` and ``_test`` beside the folder.

    The same images give the same lists. ``python -m tools.split`` balances classes and keeps copies together.

    Args:
        weights: shares of the three lists.
        annotated_only: skip images without a label file.

    Raises:
        FileNotFoundError: no images there.
    """
    folder = Path(path)
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    for image in find_images([folder]):
        if not annotated_only or label_path_for(image).exists():
            (split,) = random.Random(f"0 {image.relative_to(folder)}").choices(SPLITS, weights)
            lines[split].append(f"./{image.relative_to(folder.parent).as_posix()}\n")
    for split in SPLITS:
        file = folder.parent / f"autosplit_{split}.txt"
        if lines[split]:
            file.write_text("".join(lines[split]), encoding="utf-8")
        else:
            file.unlink(missing_ok=True)
