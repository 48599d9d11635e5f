"""Whether images can be used: their size and end at every start, all of their pixels and their content when asked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from utils.core.errors import first_line
from utils.core.files import open_regular
from utils.core.image import image_hw, read_image

MIN_IMAGE_SIDE_PX = 10  # smaller images are dropped, as in v6.1
_LARGE = 1 << 26  # pixels; 200 MB when decoded
_ONE_LARGE = threading.Lock()  # threads that check images decode one such at a time
_BLOCK = 1 << 20
_COMPLAINTS = ("corrupt", "error", "premature")


def check_image(image: Path) -> tuple[int, int]:
    """(height, width) as displayed of an image that training can use; raises what the decoder raises, or ValueError.

    Only the header and the end of the file are read where that is enough.
    """
    hw = image_hw(image)
    if min(hw) < MIN_IMAGE_SIDE_PX:
        raise ValueError(f"{hw[1]}x{hw[0]} pixels, at least {MIN_IMAGE_SIDE_PX} a side are needed")
    if not _ends_well(image):
        with _ONE_LARGE if hw[0] * hw[1] > _LARGE else contextlib.nullcontext():
            read_image(image)
    return hw


def _ends_well(image: Path) -> bool:
    """Whether a file ends as a JPEG, PNG or WebP should; if not, or for another kind, it has to be decoded."""
    with open_regular(image) as file:
        start = file.read(12)
        length = file.seek(0, 2)
        file.seek(-min(12, length), 2)
        end = file.read()
    if start[:2] == b"\xff\xd8":
        return end[-2:] == b"\xff\xd9"
    if start[:4] == b"\x89PNG":
        return end[4:8] == b"IEND"
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP" and length >= 8 + int.from_bytes(start[4:8], "little")


# Every pixel ----------------------------------------------------------------------------------------------------------


def _watch_decoders() -> None:
    """For a worker process: what the C decoders write to stderr goes to a file that ``_decode`` reads."""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)


def _decode(image: Path) -> str:
    """Decode an image in full; what is wrong with it, or "". The decoders name damage in the middle on stderr only."""
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    try:
        read_image(image)
    except Exception as error:  # decoders fail in many ways; all of them are findings
        return first_line(error).removeprefix(f"{image}: ")
    os.lseek(2, 0, os.SEEK_SET)
    words = os.read(2, 4096).decode("utf-8", "replace")
    bad = [line for line in words.splitlines() if any(word in line.lower() for word in _COMPLAINTS)]
    return bad[0][:200] if bad else ""


def decode_all(images: Sequence[Path], workers: int) -> Iterator[str]:
    """Decode every image in full, in processes of their own: what is wrong with each, in order, or ""."""
    if not images:
        return
    count = max(1, min(workers, os.cpu_count() or 1))
    with ProcessPoolExecutor(count, initializer=_watch_decoders) as pool:
        try:
            yield from pool.map(_decode, images, chunksize=8)
        finally:
            pool.shutdown(cancel_futures=True)


# The same content -----------------------------------------------------------------------------------------------------


def _digest(image: Path) -> str:
    """Hash of the bytes of a file; "" for one that cannot be read."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError), open_regular(image) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()
    return ""


def identical_files(images: Sequence[Path], workers: int) -> list[list[Path]]:
    """Groups of two and more different paths with the same bytes, sorted. Only files of equal length are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for image in dict.fromkeys(images):
        with contextlib.suppress(OSError):
            by_length[image.stat().st_size].append(image)
    candidates = list(chain.from_iterable(group for group in by_length.values() if len(group) > 1))
    groups: dict[str, list[Path]] = defaultdict(list)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for image, digest in zip(candidates, pool.map(_digest, candidates)):
            groups[digest].append(image)
    groups.pop("", None)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
