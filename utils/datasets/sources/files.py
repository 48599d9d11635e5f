"""Images and videos on disk: a file, a folder, a pattern or a list of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from utils.core.errors import InputError
from utils.core.files import IMAGE_SUFFIXES, find_images
from utils.core.image import read_image
from utils.datasets.sources.base import Frame, Source
from utils.datasets.sources.video import VIDEO_SUFFIXES, VideoFile

_MOST_COUNTED = 200  # videos whose headers are opened to know the number of frames


class FileSource(Source):
    """Images first, then videos, each in sorted order.

    Args:
        source: image, video, folder (searched at any depth), glob pattern, or ``.txt`` list of files.
        stride: of videos, every how many frames one is delivered.
        videos: False: images only.

    Attributes:
        paths: the files. root: the folder that ``Frame.relative`` counts from. capture: the reader of the video in
            progress, if it is one.

    Raises:
        FileNotFoundError: nothing there, or neither image nor video in it.
        InputError: a file that is neither.
    """

    def __init__(self, source: str, stride: int = 1, videos: bool = True) -> None:
        super().__init__()
        kinds = VIDEO_SUFFIXES if videos else frozenset()
        paths, self.root = _find(source, kinds)
        self.paths = sorted(paths, key=lambda path: (path.suffix.lower() in kinds, str(path)))
        self.stride = stride
        self.video: VideoFile | None = None
        self._total: int | None = None

    @property
    def videos(self) -> list[Path]:
        return [path for path in self.paths if is_video(path)]

    def __len__(self) -> int:
        """The number of files."""
        return len(self.paths)

    @property
    def total(self) -> int | None:
        if self._total is None and len(self.videos) <= _MOST_COUNTED:
            counts = [_frames_of(path, self.stride) for path in self.videos]
            if None not in counts:
                self._total = len(self.paths) - len(counts) + sum(count or 0 for count in counts)
        return self._total

    def batches(self, size: int = 1) -> Iterator[list[Frame]]:
        frames = self._frames()
        while batch := list(islice(frames, size)):
            yield batch

    def close(self) -> None:
        if self.video is not None:
            self.video.close()
            self.video = None

    def _frames(self) -> Iterator[Frame]:
        for path in self.paths:
            try:
                if is_video(path):
                    yield from self._of_video(path)
                else:
                    yield Frame(read_image(path), path, self.relative(path))
            except (InputError, OSError) as error:
                self.skipped.add(str(error))

    def _of_video(self, path: Path) -> Iterator[Frame]:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such video")
        self.video = video = VideoFile(path, self.stride)
        relative = self.relative(path)
        for number, image in video:
            yield Frame(image, path, relative, video.clip, number)
        video.report(self.skipped)
        self.close()

    def relative(self, path: Path) -> Path:
        """Where the results of a file go below the folder of the results; never out of it by "..", as in a list."""
        for real in (False, True):  # what takes a look at the disk comes second
            place, root = (_real(path.parent) / path.name, _real(self.root)) if real else (path, self.root)
            if place.is_relative_to(root) and ".." not in (inside := place.relative_to(root)).parts:
                return inside
        return Path(path.name)


def is_video(path: str | Path) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _frames_of(path: Path, stride: int) -> int | None:
    """How many frames a video will give, by its header; 0 for one that cannot be opened."""
    try:
        video = VideoFile(path)
    except InputError:
        return 0
    video.close()
    return None if video.clip.frames is None else -(-video.clip.frames // stride)


def _find(source: str, kinds: frozenset[str]) -> tuple[list[Path], Path]:
    """The files that ``--source`` means, and the folder above all of them."""
    path = Path(source)
    if path.exists():  # first, since a file name may contain [ ] or *
        suffix = path.suffix.lower()
        if path.is_file() and suffix not in IMAGE_SUFFIXES | kinds | {".txt"}:
            known = " ".join(sorted(kind[1:] for kind in IMAGE_SUFFIXES | kinds))
            raise InputError(f"--source {source}: neither image nor video nor .txt list; known are {known}")
        paths = find_images([path], also=kinds)
        if path.is_dir():
            return paths, path
        return paths, _common_folder(paths) if suffix == ".txt" else path.parent
    if not any(mark in source for mark in "*?["):
        raise FileNotFoundError(
            f"--source {source}: no such image, video, folder, list or address (tried {path.absolute()})"
        )
    literal = _existing_folder(source)
    pattern = glob.escape(literal) + source[len(literal) :]
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES | kinds and match.is_file()]
    if not paths:
        raise FileNotFoundError(f"--source {source}: no image or video matches this pattern ({path.absolute()})")
    fixed = literal + re.split(r"[*?\[]", source[len(literal) :], maxsplit=1)[0]  # up to the first wildcard
    return paths, Path(fixed) if fixed.endswith(("/", "\\")) else Path(fixed).parent


def _existing_folder(pattern: str) -> str:
    """The longest beginning of a pattern, up to a slash, that is a folder as it stands, whatever signs are in it."""
    ends = [place.end() for place in re.finditer(r"[/\\]" if os.name == "nt" else "/", pattern)]
    return next((pattern[:end] for end in reversed(ends) if os.path.isdir(pattern[:end])), "")  # noqa: PTH112


def _real(folder: Path) -> Path:
    """The folder by its absolute path, without links and ".."; also of one that is not there."""
    return Path(os.path.realpath(folder))


def _common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder above all files, so that two files of one name never share their results."""
    folders = {path.parent for path in paths}
    if any(".." in folder.parts for folder in folders) or len({folder.is_absolute() for folder in folders}) > 1:
        folders = {_real(folder) for folder in folders}
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # different drives
        return Path()
