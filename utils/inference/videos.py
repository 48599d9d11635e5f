"""Videos with boxes drawn in, in a form that browsers play.

The rule: H.264 in ``.mp4`` where an encoder for it is at hand (the package ``av``, or an OpenCV that was built with
one), which everything plays; else VP8 in ``.webm``, which every OpenCV can write and every current browser plays. The
``mp4v`` of v6.1 is played by no browser.
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
_STDERR = threading.Lock()  # there is one for all threads
_LONGEST_REPEAT_S = 10.0  # a live image stands still in the video for at most so long


class Encoder(Protocol):
    """A video file being written."""

    def write(self, image: np.ndarray) -> None: ...

    def close(self) -> None: ...


class AvEncoder:
    """H.264 by the package av. Raises ImportError, ValueError or OSError where it cannot be had."""

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
        self._stream.pix_fmt = "yuv420p"  # the one that browsers know
        self._stream.options = {"preset": "veryfast", "crf": "23"}

    def write(self, image: np.ndarray) -> None:
        self._mux(self._av.VideoFrame.from_ndarray(image, format="bgr24"))

    def close(self) -> None:
        self._mux(None)  # what the encoder has kept back
        self._container.close()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class OpenCvEncoder:
    """One of OpenCV's encoders. Raises OSError where this OpenCV does not have it."""

    suffix, code = ".webm", "VP80"

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        with _quiet():  # it complains about the harmless and about what is only tried
            self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*self.code), fps, size_wh)
        if not self._writer.isOpened():
            self._writer.release()
            raise OSError(f"OpenCV cannot write {self.code}")

    def write(self, image: np.ndarray) -> None:
        self._writer.write(image)

    def close(self) -> None:
        self._writer.release()


class OpenCvH264(OpenCvEncoder):
    """H.264 by OpenCV."""

    suffix, code = ".mp4", "avc1"


ENCODERS: tuple[type[AvEncoder | OpenCvEncoder], ...] = (AvEncoder, OpenCvH264, OpenCvEncoder)


class VideoFiles:
    """A video for each clip, named like it, below ``folder``.

    A live clip keeps its pace: the image stands still for the frames that were passed over. A frame of another size
    than the one before starts a new file.
    """

    def __init__(self, folder: Path | OutputFolder) -> None:
        self.folder = OutputFolder.of(folder)
        self.paths: list[Path] = []
        self._open: dict[Path, tuple[Encoder, tuple[int, int], int]] = {}  # by Frame.relative: size, last frame number
        self._useless: set[type[Encoder]] = set()

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
            encoder = self._new(frame.relative, clip.fps / clip.stride, hw)
        passed = (frame.number - last) / clip.stride if clip.live else 1
        picture = _even(drawn)
        for _ in range(max(1, min(round(passed), int(_LONGEST_REPEAT_S * clip.fps / clip.stride)))):
            encoder.write(picture)
        self._open[frame.relative] = (encoder, hw, frame.number)

    def close(self) -> None:
        """Finish all files; one that is not closed cannot be played."""
        for encoder, _, _ in self._open.values():
            encoder.close()
        self._open.clear()

    def _new(self, relative: Path, fps: float, hw: tuple[int, int]) -> Encoder:
        size_wh = (hw[1] + hw[1] % 2, hw[0] + hw[0] % 2)
        for kind in ENCODERS:
            if kind in self._useless:
                continue
            name = relative.with_suffix("") if relative.suffix else relative
            path = self.folder.path(name.with_name(name.name + kind.suffix))
            path = increment_path(path, exist_ok=path not in self.paths, sep="-")
            path.unlink(missing_ok=True)  # of an earlier run; a link must not be followed by the encoder
            try:
                encoder = kind(path, fps, size_wh)
            except (ImportError, ValueError, OSError) as error:
                LOG.debug("%s: %s", kind.__name__, error)
                self._useless.add(kind)
                path.unlink(missing_ok=True)
                continue
            self.paths.append(path)
            return encoder
        raise InputError(f"{self.folder.folder}: no video can be written here; use --nosave, or pip install av")


def _even(image: np.ndarray) -> np.ndarray:
    """The image with even sides, as the encoders want them; the last row or column is doubled where needed."""
    odd_h, odd_w = image.shape[0] % 2, image.shape[1] % 2
    if not (odd_h or odd_w):
        return image
    return cv2.copyMakeBorder(image, 0, odd_h, 0, odd_w, cv2.BORDER_REPLICATE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that a library prints reaches the terminal. Python's own stderr would not catch it."""
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
