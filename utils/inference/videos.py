"""Videos with boxes drawn in, in a format that browsers play.

H.264 in ``.mp4`` where the package ``av`` is installed, which every player knows; else VP8 in ``.webm``, which every
OpenCV can write and every current browser plays. No browser plays the ``mp4v`` of v6.1.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from utils.core.errors import InputError
from utils.core.files import increment_path
from utils.core.output import OutputFolder
from utils.datasets.sources.base import Clip, Frame

LOG = logging.getLogger(__name__)
_STDERR = threading.Lock()  # one file descriptor for all threads
_LONGEST_REPEAT_S = 10.0  # a frame of a live source is repeated for at most so long


class Encoder(Protocol):
    """A video file being written."""

    def write(self, image: np.ndarray) -> None: ...

    def close(self) -> None: ...


class AvEncoder:
    """H.264 by the package av. Raises ImportError, ValueError or OSError where it is not available."""

    suffix = ".mp4"

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        self._av: Any = importlib.import_module("av")
        self._container = self._av.open(str(path), "w", options={"movflags": "+faststart"})
        try:
            self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        except Exception:  # an av that was built without x264
            self._container.close()
            raise
        self._stream.width, self._stream.height = size_wh
        self._stream.pix_fmt = "yuv420p"  # the format that browsers play
        self._stream.options = {"preset": "veryfast", "crf": "23"}

    def write(self, image: np.ndarray) -> None:
        self._mux(self._av.VideoFrame.from_ndarray(image, format="bgr24"))

    def close(self) -> None:
        self._mux(None)  # frames that the encoder has buffered
        self._container.close()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class Vp8Encoder:
    """VP8 by OpenCV. Raises OSError where this OpenCV cannot write it."""

    suffix = ".webm"

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        with _stderr_silenced():  # FFmpeg prints harmless warnings
            self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), fps, size_wh)
        if not self._writer.isOpened():
            self._writer.release()
            raise OSError("OpenCV cannot write VP8")

    def write(self, image: np.ndarray) -> None:
        self._writer.write(image)

    def close(self) -> None:
        self._writer.release()


ENCODERS: tuple[type[AvEncoder | Vp8Encoder], ...] = (AvEncoder, Vp8Encoder)


class VideoFiles:
    """A video for each clip, named like it, below ``folder``.

    A live clip keeps its speed: a frame is repeated for those that were skipped after it. A frame of another size than
    the one before starts a new file.

    Attributes:
        paths: of the files, in the order they were begun.
    """

    def __init__(self, folder: Path | OutputFolder) -> None:
        self.folder = OutputFolder.of(folder)
        self.paths: list[Path] = []
        self._open: dict[
            Path, tuple[Encoder, tuple[int, int], int]
        ] = {}  # by Frame.relative: encoder, size, last frame number
        self._unavailable: set[type[Encoder]] = set()

    def write(self, frame: Frame, drawn: np.ndarray) -> None:
        """Add a frame; ``drawn`` HWC BGR uint8.

        Raises:
            InputError: no encoder can write here.
        """
        clip = frame.clip or Clip(frame.title)
        hw = (drawn.shape[0], drawn.shape[1])
        if not clip.live and frame.relative not in self._open:
            self.close()  # videos come one after another
        encoder, known_hw, last = self._open.get(frame.relative, (None, None, frame.number - clip.stride))
        if encoder is None or known_hw != hw:
            if encoder is not None:
                encoder.close()
            encoder = self._open_encoder(frame.relative, clip.fps / clip.stride, hw)
        repeats = (frame.number - last) / clip.stride if clip.live else 1
        image = _with_even_sides(drawn)
        for _ in range(max(1, min(round(repeats), int(_LONGEST_REPEAT_S * clip.fps / clip.stride)))):
            encoder.write(image)
        self._open[frame.relative] = (encoder, hw, frame.number)

    def close(self) -> None:
        """Complete all files; one that is not closed cannot be played."""
        for encoder, _, _ in self._open.values():
            encoder.close()
        self._open.clear()

    def _open_encoder(self, relative: Path, fps: float, hw: tuple[int, int]) -> Encoder:
        size_wh = (hw[1] + hw[1] % 2, hw[0] + hw[0] % 2)
        for kind in ENCODERS:
            if kind in self._unavailable:
                continue
            name = relative.with_suffix("") if relative.suffix else relative
            path = self.folder.path(name.with_name(name.name + kind.suffix))
            path = increment_path(path, exist_ok=path not in self.paths, sep="-")
            path.unlink(missing_ok=True)  # of an earlier run; a link must not be followed by the encoder
            try:
                encoder = kind(path, fps, size_wh)
            except (ImportError, ValueError, OSError) as error:
                LOG.debug("%s: %s", kind.__name__, error)
                self._unavailable.add(kind)
                path.unlink(missing_ok=True)
                continue
            self.paths.append(path)
            return encoder
        raise InputError(f"{self.folder.folder}: no video can be written here; use --nosave, or pip install av")


def _with_even_sides(image: np.ndarray) -> np.ndarray:
    """Return the image with even sides, which the encoders need; the last row or column is repeated where needed."""
    odd_h, odd_w = image.shape[0] % 2, image.shape[1] % 2
    if not (odd_h or odd_w):
        return image
    return cv2.copyMakeBorder(image, 0, odd_h, 0, odd_w, cv2.BORDER_REPLICATE)


@contextlib.contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Discard what a library prints; it does not go through Python's ``sys.stderr``."""
    with _STDERR:
        sys.stderr.flush()
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)
