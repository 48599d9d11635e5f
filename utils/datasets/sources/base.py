"""What every kind of source gives: frames, one by one or several at a time."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import numpy as np

FALLBACK_FPS = 30.0  # where a video or camera states none that can be believed


@dataclass(frozen=True)
class Clip:
    """What the frames of one video, camera or screen have in common.

    Attributes:
        name: file or address, for messages; without passwords.
        fps: frames per second, as they come from the source.
        stride: every how many frames one is delivered.
        frames: how many there are in all, None when it is not known.
        live: frames come when they come, and those that are not taken are lost.
    """

    name: str
    fps: float = FALLBACK_FPS
    stride: int = 1
    frames: int | None = None
    live: bool = False


@dataclass(frozen=True)
class Frame:
    """One image: HWC BGR uint8, and where it came from.

    ``relative`` is a path below the source, for the output's name. For a frame of a video or camera ``clip`` says of
    which, and ``number`` counts its frames from 1.
    """

    image: np.ndarray
    path: Path
    relative: Path
    clip: Clip | None = None
    number: int = 0

    @property
    def title(self) -> str:
        """File or address, for messages and tables."""
        return str(self.path) if self.clip is None else self.clip.name


@dataclass
class Skipped:
    """What could not be used: how many images or frames, and a line on each file or source."""

    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str, count: int = 1) -> None:
        self.lines.append(line)
        self.count += count


class Source(ABC):
    """Something that frames come from. To be closed, or used in a ``with`` statement.

    Attributes:
        live: cameras, streams and screens, which have no end of their own.
        skipped: images and frames that could not be read so far.
    """

    live = False

    def __init__(self) -> None:
        self.skipped = Skipped()

    @property
    @abstractmethod
    def total(self) -> int | None:
        """How many frames there will be, as far as anybody knows."""

    @abstractmethod
    def batches(self, size: int = 1) -> Iterator[list[Frame]]:
        """Frames in lists of at most ``size``. A live source gives what there is, at most one frame of each camera."""

    def __iter__(self) -> Iterator[Frame]:
        for batch in self.batches():
            yield from batch

    @abstractmethod
    def close(self) -> None:
        """Let go of files and cameras; may be called twice."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def plausible_fps(value: float) -> float:
    """``value`` if frames can come at that rate, else the fallback: broken files say 0, nan, -1 or 90000."""
    return float(value) if math.isfinite(value) and 0.1 <= value <= 1000 else FALLBACK_FPS


def plausible_count(value: float) -> int | None:
    """A number of frames, or None: streams say 0, -1, nan or an absurd number."""
    return int(value) if math.isfinite(value) and 1 <= value < 1e9 else None


def without_password(address: str) -> str:
    """An address as it may stand in logs and tables: ``rtsp://user:secret@cam/1`` -> ``rtsp://cam/1``."""
    return re.sub(r"(?<=://)[^/?#]*@", "", address)


def file_name_for(address: str) -> str:
    """A file name, without any dot, for the results of an address: host and path, or a camera's number."""
    parts = urlsplit(address)
    text = f"{parts.hostname or ''}{f'_{parts.port}' if parts.port else ''}{parts.path}" if parts.scheme else address
    return re.sub(r"[^\w-]+", "_", text).strip("_") or "stream"
