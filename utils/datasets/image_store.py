"""The decoded images of a data set, resized for the network: read on demand, or kept in memory or on disk."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from utils.config.flags import CACHES
from utils.core.errors import InputError, suggestion
from utils.core.files import write_atomic
from utils.core.image import read_image, read_image_reduced
from utils.core.names import counted
from utils.datasets.labels.records import LabelRecord

LOG = logging.getLogger(__name__)
_THREADS = 8  # decoding does not hold the interpreter lock

_Result = TypeVar("_Result")
_Stored = tuple[np.ndarray, tuple[int, int]]  # image, and its (height, width) before it was resized


def _resize(image: np.ndarray, hw: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    return image if image.shape[:2] == hw else cv2.resize(image, hw[::-1], interpolation=interpolation)


class ImageStore:
    """The images of ``records``, the longer side of each resized to ``imgsz``.

    Args:
        training: decode JPEGs at reduced size and shrink without averaging; images smaller than ``imgsz`` are stored
            at their own size and enlarged by ``read``. False: decode in full and shrink by averaging, which is slower
            and smoother.
        cache: "ram" decodes all images now and keeps them; "disk" keeps them as ``.npy`` files, which are valid as
            long as size and time of the image do not change; None: neither.
        folder: where "disk" keeps its files; None: beside each image.

    Attributes:
        sizes_hw: height and width of each image with its longer side at ``imgsz``.
        stored_hw: height and width as stored: in training not more than those of the file.

    Raises:
        InputError: no such cache; an image cannot be read.
    """

    def __init__(
        self,
        records: Sequence[LabelRecord],
        imgsz: int,
        *,
        training: bool,
        cache: str | None = None,
        folder: Path | None = None,
    ) -> None:
        if cache and cache not in CACHES:
            raise InputError(f"image cache '{cache}' is not known{suggestion(cache, CACHES)}; 'ram' and 'disk' are")
        self.imgsz = imgsz
        self.training = training
        self._paths = [record.image for record in records]
        self._full_hw = [record.hw for record in records]
        self.sizes_hw = [self._fit(hw) for hw in self._full_hw]
        self.stored_hw = self.sizes_hw
        if training:
            self.stored_hw = [full if max(full) < imgsz else hw for full, hw in zip(self._full_hw, self.sizes_hw)]
        self._folder = folder
        self._in_memory: list[_Stored] = []
        self._on_disk = False
        self._recent: dict[int, _Stored] = {}  # by index, in the order of decoding
        self._max_recent = 0
        if cache == "ram":
            self._in_memory = self._for_all(self._decode)
            size = sum(image.nbytes for image, _ in self._in_memory)
            LOG.info("%s kept in memory, %.0f MB", counted(len(records), "image"), size / 1e6)
        elif cache == "disk":
            self._fill_disk()

    def read(self, index: int, enlarge: bool = True) -> _Stored:
        """Return an image, uint8 BGR, and its (height, width) before resizing.

        Args:
            index: position in the records.
            enlarge: bring an image that is smaller than ``imgsz`` to that size.
        """
        image, full_hw = self._stored_image(index)
        return (_resize(image, self.sizes_hw[index]) if enlarge else image), full_hw

    @property
    def keeps_all(self) -> bool:
        """Whether all images are decoded already."""
        return bool(self._in_memory) or self._on_disk

    def keep_recent(self, count: int) -> None:
        """Keep the last ``count`` decoded images from now on; without effect where all are kept."""
        self._max_recent = 0 if self.keeps_all else count
        self._recent.clear()

    def _stored_image(self, index: int) -> _Stored:
        if self._in_memory:
            return self._in_memory[index]
        if self._on_disk and (image := self._read_file(index)) is not None:
            return image, self._full_hw[index]
        if not self._max_recent:
            return self._decode(index)
        stored = self._recent.get(index)
        if stored is None:
            while len(self._recent) >= self._max_recent:
                del self._recent[next(iter(self._recent))]  # decoded first: mosaics take images in that order
            stored = self._recent[index] = self._decode(index)
        return stored

    def _fit(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Return ``hw`` scaled to a longer side of ``imgsz``."""
        ratio = self.imgsz / max(hw)
        # Half of an odd side is rounded up in training, as JPEG decoders do: then there is nothing left to resize.
        height, width = (math.ceil(side * ratio - 1e-6) if self.training else int(side * ratio) for side in hw)
        return max(height, 1), max(width, 1)

    def _decode(self, index: int) -> _Stored:
        path = self._paths[index]
        try:
            if self.training:
                image, full_hw = read_image_reduced(path, self.stored_hw[index])
                return _resize(image, self.stored_hw[index]), full_hw
            image = read_image(path)
        except FileNotFoundError:
            raise InputError(f"{path}: this image was removed after the start; put it back") from None
        full_hw = image.shape[0], image.shape[1]
        smooth = cv2.INTER_AREA if max(full_hw) > self.imgsz else cv2.INTER_LINEAR
        return _resize(image, self._fit(full_hw), smooth), full_hw

    def _for_all(self, work: Callable[[int], _Result]) -> list[_Result]:
        indices = range(len(self._paths))
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(tqdm(pool.map(work, indices), desc="decoding images", total=len(indices), leave=False))

    # Files ------------------------------------------------------------------------------------------------------------

    def _file(self, index: int) -> Path:
        """Return the file of an image, named after all that its content depends on: a changed image has another file.

        Raises:
            FileNotFoundError: the image was removed.
        """
        path = self._paths[index]
        state = path.stat()
        kind = f"{self.imgsz}{'' if self.training else 'v'}"
        name = f"{path.name}.{kind}.{state.st_size:x}-{state.st_mtime_ns:x}.npy"
        if self._folder is None:
            return path.with_name(f".{name}")
        # Images of one name from several folders may meet here.
        tag = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:8]
        return self._folder / f"{tag}-{name}"

    def _read_file(self, index: int) -> np.ndarray | None:
        try:
            image = np.load(self._file(index), mmap_mode="r")
        except (OSError, ValueError):  # missing, or another file
            return None
        usable = image.dtype == np.uint8 and image.shape == (*self.stored_hw[index], 3)
        return np.asarray(image) if usable else None

    def _fill_disk(self) -> None:
        """Write the files that are missing. Files that cannot be written are reported in one warning."""

        def fill(index: int) -> str:
            if self._read_file(index) is not None:
                return ""
            content = io.BytesIO()
            np.save(content, self._decode(index)[0])
            try:
                if self._folder is not None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                write_atomic(self._file(index), content.getvalue())
            except OSError as error:
                return f"{error.filename or self._paths[index].parent}: {error.strerror}"
            return ""

        self._on_disk = True
        problems = [problem for problem in self._for_all(fill) if problem]
        if problems:
            LOG.warning(
                "--cache disk: %d of %d images could not be written (%s); they are decoded every time",
                len(problems),
                len(self._paths),
                problems[0],
            )
