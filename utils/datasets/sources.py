"""Pictures to detect on: a file, a folder, a glob or a list."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import IMAGE_SUFFIXES, find_images
from utils.image import read_image


@dataclass(frozen=True)
class Frame:
    """One picture: HWC BGR uint8, and where it came from, as a path below the source (for the output's name)."""

    image: np.ndarray
    path: Path
    relative: Path


class ImageSource:
    """The pictures ``--source`` names, in sorted order.

    Args:
        source: picture, folder (searched at any depth), glob pattern, or ``.txt`` list of pictures.

    Raises:
        FileNotFoundError: nothing there, or no picture in it.
        InputError: a file that is not a picture.
    """

    def __init__(self, source: str) -> None:
        self.skipped: list[str] = []
        path = Path(source)
        if path.exists():  # first, since a file name may contain [ ] or *
            self.root = path if path.is_dir() else path.parent
            self.paths = find_images([path])
        elif any(mark in source for mark in "*?["):
            matches = sorted(Path(match) for match in glob.glob(source, recursive=True))  # noqa: PTH207
            self.paths = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES]
            if not self.paths:
                raise FileNotFoundError(f"--source {source}: no picture matches this pattern ({path.absolute()})")
            fixed = re.split(r"[*?\[]", source, maxsplit=1)[0]  # up to the first wildcard
            self.root = Path(fixed) if fixed.endswith(("/", "\\")) else Path(fixed).parent
        else:
            raise FileNotFoundError(f"--source {source}: no such picture, folder or list (looked at {path.absolute()})")

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        """Frames; a picture that cannot be read is noted in ``skipped`` and left out."""
        for path in self.paths:
            try:
                image = read_image(path)
            except (InputError, OSError) as error:
                self.skipped.append(str(error))
                continue
            inside = path.is_relative_to(self.root)
            yield Frame(image, path, path.relative_to(self.root) if inside else Path(path.name))
