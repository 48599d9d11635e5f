"""What ``--source`` may name: files of images and videos, cameras, streams, the screen."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from utils.core.errors import InputError
from utils.core.files import IMAGE_SUFFIXES
from utils.datasets.sources.base import Clip, Frame, Source, without_password
from utils.datasets.sources.files import FileSource
from utils.datasets.sources.live import LiveSettings, LiveSource
from utils.datasets.sources.screen import ScreenSource
from utils.datasets.sources.url import UrlVideo
from utils.datasets.sources.video import VIDEO_SUFFIXES

__all__ = [
    "VIDEO_SUFFIXES",
    "Clip",
    "FileSource",
    "Frame",
    "LiveSettings",
    "LiveSource",
    "ScreenSource",
    "Source",
    "open_source",
    "without_password",
]


def open_source(source: str, stride: int = 1, reconnect: int = 5) -> Source:
    """The frames of what ``--source`` names.

    ==========================================  ===================================================================
    image, video, folder, pattern             as :class:`FileSource` has it
    ``list.txt``                                of files; or of addresses and camera numbers, one a line
    ``list.streams``                            of addresses, camera numbers, and files to be played like a camera
    ``0``                                       a camera by its number
    ``rtsp://...``, ``rtmp://``, ``http://``    a stream
    ``http://host/a.mp4``                       a video (by its suffix), read in order to its end
    ``screen``                                  as :class:`ScreenSource` has it; a file of that name comes first
    ==========================================  ===================================================================

    Args:
        source: the text.
        stride: of videos and streams, every how many frames one is delivered.
        reconnect: attempts in a row to get a lost stream back.

    Raises:
        FileNotFoundError, InputError: nothing there, or of no known kind.
    """
    settings = LiveSettings(stride=stride, reconnect=reconnect)
    if "://" in source:
        suffix = Path(urlsplit(source).path).suffix.lower()
        if suffix in IMAGE_SUFFIXES - VIDEO_SUFFIXES:
            raise InputError(f"--source {source}: images are not downloaded; save it and give its file name")
        is_file = suffix in VIDEO_SUFFIXES and source.startswith(("http://", "https://"))
        return UrlVideo(source, stride) if is_file else LiveSource([source], settings)
    path = Path(source)
    if path.exists():
        addresses = _addresses(path)
        return LiveSource(addresses, settings) if addresses else FileSource(source, stride)
    if source.isdecimal():
        return LiveSource([source], settings)
    if source.split()[:1] == ["screen"]:
        return ScreenSource(source)
    return FileSource(source, stride)


def _addresses(path: Path) -> list[str]:
    """The lines of a list of streams; none when the file is something else.

    Raises:
        InputError: a list of streams without any, or a ``.txt`` list with files among them.
    """
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".streams") or not path.is_file():
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the list as UTF-8 text") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if suffix == ".streams":
        if not lines:
            raise InputError(f"{path}: names no stream; expected addresses or camera numbers, one a line")
        lines = [os.path.expanduser(line) for line in lines]  # noqa: PTH111
        beside = {line: str(path.parent / line) for line in lines if (path.parent / line).is_file()}
        return [beside.get(line, line) for line in lines]
    streams = [line for line in lines if line.isdecimal() or "://" in line]
    if streams and len(streams) < len(lines):
        other = next(line for line in lines if line not in streams)
        raise InputError(f"{path}: '{other}' is no stream, other lines are; use a separate list for files")
    return streams
