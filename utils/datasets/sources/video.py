"""Video files, read in order, past the frames that are broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from utils.core.errors import InputError
from utils.datasets.sources.base import Clip, Skipped, plausible_count, plausible_fps, without_password

VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
_MOST_FAILURES = 50  # reads that fail one after another, until the rest of a video is given up


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used here."""

    def isOpened(self) -> bool: ...

    def get(self, property_id: int) -> float: ...

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, Any]: ...

    def release(self) -> None: ...


def open_file(name: str) -> Capture:
    """OpenCV's reader for a file or an address."""
    return cv2.VideoCapture(name)


class VideoFile:
    """The frames of one video, in order.

    Args:
        path: the file; an ``http://`` address of one will do.
        stride: deliver every how many frames.
        opener: makes the reader.

    Attributes:
        clip: rate and number of frames. ``capture``: the reader. delivered: frames read so far, also those that the
            stride skips.

    Raises:
        InputError: not a video that OpenCV can read.
    """

    def __init__(self, path: str | Path, stride: int = 1, opener: Callable[[str], Capture] = open_file) -> None:
        self.path = Path(path)
        self.capture = opener(str(path))
        if not self.capture.isOpened():
            self.capture.release()
            raise InputError(f"{without_password(str(path))}: not a readable video, or in a codec OpenCV does not know")
        self.clip = Clip(
            name=without_password(str(path)),
            fps=plausible_fps(self.capture.get(cv2.CAP_PROP_FPS)),
            stride=stride,
            frames=plausible_count(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)),
        )
        self.delivered = 0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the frame from 1, image HWC BGR uint8). Frames that cannot be decoded are passed over."""
        failures = 0
        while failures < _MOST_FAILURES:
            if self.capture.grab():
                wanted = self.delivered % self.clip.stride == 0
                image = self._retrieve() if wanted else None
                if image is not None or not wanted:
                    failures = 0
                    self.delivered += 1
                    if image is not None:
                        yield self.delivered, image
                    continue
            if self.clip.frames is not None and self.delivered >= self.clip.frames:
                break  # the end, as stated
            failures += 1
        self.close()

    def report(self, skipped: Skipped) -> None:
        """At the end: note the frames that the header states and could not be read."""
        stated = self.clip.frames or 0
        if self.delivered < stated:
            line = f"{self.clip.name}: {self.delivered} of the {stated} frames it states could be read"
            skipped.add(line, stated - self.delivered)
        elif self.delivered == 0:
            skipped.add(f"{self.clip.name}: no frame could be read", 0)

    def _retrieve(self) -> np.ndarray | None:
        done, image = self.capture.retrieve()
        return as_bgr(image) if done and image is not None else None

    def close(self) -> None:
        self.capture.release()


def as_bgr(image: np.ndarray) -> np.ndarray | None:
    """A frame as HWC BGR uint8, contiguous; None when it is no image."""
    if image.dtype != np.uint8 or 0 in image.shape:
        return None
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])
