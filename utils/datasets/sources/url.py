"""A video on a web server, read in order like a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from utils.datasets.sources.base import Frame, Source, file_name_for
from utils.datasets.sources.video import VideoFile


class UrlVideo(Source):
    """The frames of one video behind an ``http`` address; nothing is stored.

    Args:
        address: of the video.
        stride: every how many frames one is delivered.

    Raises:
        InputError: nothing there that OpenCV can read.
    """

    def __init__(self, address: str, stride: int = 1) -> None:
        super().__init__()
        self.video = VideoFile(address, stride)
        self.relative = Path(file_name_for(address))

    @property
    def total(self) -> int | None:
        clip = self.video.clip
        return None if clip.frames is None else -(-clip.frames // clip.stride)

    def batches(self, size: int = 1) -> Iterator[list[Frame]]:
        frames = self._frames()
        while batch := list(islice(frames, size)):
            yield batch
        self.video.report(self.skipped)

    def _frames(self) -> Iterator[Frame]:
        for number, image in self.video:
            yield Frame(image, Path(self.video.clip.name), self.relative, self.video.clip, number)

    def close(self) -> None:
        self.video.close()
