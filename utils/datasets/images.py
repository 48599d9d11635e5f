"""The decoded images of a data set, resized for the network, read on demand or kept in memory or on disk."""

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
from utils.core.image import read_image, read_image_for
from utils.core.names import counted
from utils.datasets.labels import LabelRecord

LOG = logging.getLogger(__name__)
_THREADS = 8  # decoding happens outside the interpreter lock

ResultT = TypeVar("ResultT")


def _resize_part(part: np.ndarray, whole_hw: tuple[int, int], to_hw: tuple[int, int]) -> np.ndarray:
    """Resize the upper rows of an image of ``whole_hw`` as they would be if all of it came to ``to_hw``."""
    if whole_hw == to_hw:
        return part
    if part.shape[0] == whole_hw[0]:
        return cv2.resize(part, to_hw[::-1], interpolation=cv2.INTER_LINEAR)
    fx, fy = to_hw[1] / whole_hw[1], to_hw[0] / whole_hw[0]
    return cv2.resize(part, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)


class Images:
    """The images of ``records``, the longer side of each resized to ``imgsz``.

    Args:
        training: JPEGs may be decoded at reduced size and in part, and nothing is averaged when it gets smaller; what
            would have to be enlarged is kept as it is until it is asked for.
            False: every image is decoded in full and reduced by averaging, which is slower and smoother.
        cache: "ram" decodes all images now and keeps them; "disk" keeps them as ``.npy`` files, which are valid as
            long as size and time of the image do not change; None: neither.
        folder: where "disk" keeps its files; None: beside each image.

    Attributes:
        sizes_hw: height and width of each image with its longer side at ``imgsz``.
        kept_hw: the same, but not more than its own size: that of what is kept, and loaded unless it is to be enlarged.

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
        self.sizes_hw = [self._fit(record.hw) for record in records]
        self.kept_hw = self.sizes_hw
        if training:
            self.kept_hw = [r.hw if max(r.hw) < imgsz else hw for r, hw in zip(records, self.sizes_hw)]
        self._paths = [record.image for record in records]
        self._full_hw = [record.hw for record in records]
        self._folder = folder
        self._kept: list[tuple[np.ndarray, tuple[int, int]]] = []
        self._on_disk = False
        self._recent: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}  # by index, in the order of decoding
        self._most_recent = 0
        if cache == "ram":
            self._kept = self._for_all(self._decode)
            size = sum(image.nbytes for image, _ in self._kept)
            LOG.info("%s kept in memory, %.0f MB", counted(len(records), "image"), size / 1e6)
        elif cache == "disk":
            self._fill_disk()

    def load(self, index: int, rows: float = 1.0, enlarge: bool = True) -> tuple[np.ndarray, tuple[int, int]]:
        """An image, uint8 BGR, and its (height, width) before resizing.

        In training, rows below the share ``rows`` of its height may be missing. ``enlarge`` says whether one that is
        smaller than ``imgsz`` is brought to that size.
        """
        image, full_hw = self._kept_image(index, rows)
        if enlarge and self.kept_hw[index] != self.sizes_hw[index]:
            image = _resize_part(image, self.kept_hw[index], self.sizes_hw[index])
        return image, full_hw

    @property
    def keeps_all(self) -> bool:
        """Whether nothing needs decoding any more."""
        return bool(self._kept) or self._on_disk

    def keep_recent(self, count: int) -> None:
        """From now on keep the last ``count`` decoded images, whole; does nothing when all are kept anyway."""
        self._most_recent = 0 if self.keeps_all else count
        self._recent.clear()

    def _kept_image(self, index: int, rows: float) -> tuple[np.ndarray, tuple[int, int]]:
        if self._kept:
            return self._kept[index]
        if self._on_disk:
            stored = self._stored(index)
            if stored is not None:
                return stored, self._full_hw[index]
        if not self._most_recent:
            return self._decode(index, rows)
        found = self._recent.get(index)
        if found is None:
            while len(self._recent) >= self._most_recent:
                del self._recent[next(iter(self._recent))]  # the one decoded first: partners are taken in that order
            found = self._recent[index] = self._decode(index)
        return found

    def _fit(self, hw: tuple[int, int]) -> tuple[int, int]:
        ratio = self.imgsz / max(hw)
        # Half of an odd side is rounded up in training, as JPEG decoders do: then there is nothing left to resize.
        height, width = (math.ceil(side * ratio - 1e-6) if self.training else int(side * ratio) for side in hw)
        return max(height, 1), max(width, 1)

    def _decode(self, index: int, rows: float = 1.0) -> tuple[np.ndarray, tuple[int, int]]:
        path = self._paths[index]
        try:
            if self.training:
                part, decoded_hw, full_hw = read_image_for(path, self.kept_hw[index], rows)
                return _resize_part(part, decoded_hw, self.kept_hw[index]), full_hw
            image = read_image(path)
        except FileNotFoundError:
            raise InputError(f"{path}: this image was there at the start and is gone now; put it back") from None
        full_hw = image.shape[0], image.shape[1]
        height, width = self._fit(full_hw)
        if full_hw != (height, width):
            smooth = cv2.INTER_AREA if max(full_hw) > self.imgsz else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=smooth)
        return image, full_hw

    def _for_all(self, work: Callable[[int], ResultT]) -> list[ResultT]:
        indices = range(len(self._paths))
        with ThreadPoolExecutor(_THREADS) as pool:
            done = tqdm(pool.map(work, indices), desc="decoding images", total=len(indices), leave=False)
            return list(done)

    # Files ------------------------------------------------------------------------------------------------------------

    def _file(self, index: int) -> Path:
        """Named after all that its content depends on, so that a changed image has another file.

        Raises FileNotFoundError when the image is gone.
        """
        path = self._paths[index]
        facts = path.stat()
        kind = f"{self.imgsz}{'' if self.training else 'v'}"
        name = f"{path.name}.{kind}.{facts.st_size:x}-{facts.st_mtime_ns:x}.npy"
        if self._folder is None:
            return path.with_name(f".{name}")
        # Images of one name from several folders may meet here.
        tag = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:8]
        return self._folder / f"{tag}-{name}"

    def _stored(self, index: int) -> np.ndarray | None:
        try:
            image = np.load(self._file(index), mmap_mode="r")
        except (OSError, ValueError):  # not there, or not what we wrote
            return None
        good = image.dtype == np.uint8 and image.shape == (*self.kept_hw[index], 3)
        return np.asarray(image) if good else None

    def _fill_disk(self) -> None:
        """Write the files that are missing; a folder that takes none is reported once and the run goes on."""

        def fill(index: int) -> str:
            if self._stored(index) is not None:
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
                len(problems), len(self._paths), problems[0],
            )  # fmt: skip
