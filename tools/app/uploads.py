"""Uploads: bodies of requests within limits of size and time, and checks of files before they are decoded."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.core.errors import InputError
from utils.core.image import decode_image
from utils.core.image_header import size_and_orientation

STALL_TIME_S, MIN_BYTES_PER_S = 10.0, 16_000  # an upload may stop for so long, and must be at least so fast
SLOT_TIME_S = 60.0  # longest wait for a slot
VIDEO_HEAD = 200  # bytes of a file that ``looks_like_video`` reads
_IN_MEMORY = 1 << 18  # bytes of one upload; longer ones are written to disk
_READ_ON = 4  # up to so many times the allowed size is read and dropped: browsers read the answer after sending all
_TS_PACKET = 188


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        detail: a sentence for the user.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class UploadTooLargeError(InputError):
    """More bytes, pixels or frames than are allowed."""


def status_and_detail(problem: Exception) -> tuple[int, str]:
    """Return the HTTP status of a request that failed, and a sentence for the user."""
    if isinstance(problem, RefusedError):
        return problem.status, problem.detail
    if isinstance(problem, InputError):
        return 413 if isinstance(problem, UploadTooLargeError) else 400, str(problem)
    if type(problem).__name__ == "ClientDisconnect":
        return 400, "the upload was broken off"
    return 500, "something went wrong here; the terminal shows what"


class UploadReceiver:
    """Receives bodies of requests into temporary files, within limits of size and time.

    Args:
        max_bytes: of one upload.
        flag: the option that sets ``max_bytes``, for the message.
        max_total: bytes of all uploads that have begun and are not processed yet.
        folder: of the files; None: the temporary folder of the system.

    Attributes:
        held: bytes of all uploads at present.
    """

    def __init__(self, max_bytes: int, flag: str, max_total: int, folder: Path | None = None) -> None:
        self.max_bytes, self.flag, self.max_total, self.folder = max_bytes, flag, max_total, folder
        self.held = 0

    @contextlib.asynccontextmanager
    async def receive(self, request: Any) -> AsyncIterator[IO[bytes]]:
        """Give the whole body of a Starlette request as a file, which is removed at the end of the ``with``.

        Raises:
            RefusedError: too many bytes, here or in all uploads together, or too slow.
        """
        size = kept = 0
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.folder) if self.folder else None) as file:
            try:
                async for part in _in_time(request.stream()):
                    size += len(part)
                    if size > _READ_ON * self.max_bytes:
                        break
                    if size <= self.max_bytes:
                        file.write(part)
                        kept += len(part)
                        self.held += len(part)
                        if self.held > self.max_total:
                            raise RefusedError(503, "too many uploads at present; try again in a moment")
                if size > self.max_bytes:
                    limit = f"{self.max_bytes / 1e6:g} MB"
                    raise RefusedError(413, f"the file has more than {limit}, which is what {self.flag} allows")
                file.seek(0)
                yield file
            finally:
                self.held -= kept


async def _in_time(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield ``parts`` as long as they arrive fast enough. Raises RefusedError: they do not."""
    loop = asyncio.get_running_loop()
    due = loop.time() + STALL_TIME_S
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), due - loop.time())
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise RefusedError(408, "the upload is too slow; send it again over a faster connection") from None
        # A fast part extends the time to the limit at most: else a client could hold a slot for hours.
        due = min(due + len(part) / MIN_BYTES_PER_S, loop.time() + STALL_TIME_S)
        yield part


class UploadSlots:
    """A limit for the uploads that are processed at a time; the others wait on disk.

    Args:
        count: of uploads.
    """

    def __init__(self, count: int) -> None:
        self._count, self._free = count, asyncio.Semaphore(count)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot until the end of the ``with``.

        Raises:
            RefusedError: none was free in time.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), SLOT_TIME_S)
        except asyncio.TimeoutError:
            raise RefusedError(503, f"{self._count} images are being processed; try again in a moment") from None
        try:
            yield
        finally:
            self._free.release()


def decode_upload(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode the bytes of an image file to HWC BGR uint8, as ``utils.core.image.read_image`` does for a file.

    The header is read first, so a small file cannot become a huge image.

    Raises:
        UploadTooLargeError: more than ``max_pixels``.
        InputError: no image, or a broken one.
    """
    try:
        (height, width), _ = size_and_orientation(BytesIO(content))
    except Exception as error:  # an unknown header; to decode the file nevertheless could take any memory
        raise InputError("this is no image: a JPEG, PNG, WebP, BMP or TIFF file is expected") from error
    if height * width > max_pixels:
        raise UploadTooLargeError(f"the image has {width} x {height} pixels, allowed are {max_pixels} in all")
    try:
        return decode_image(content, "upload")
    except InputError as error:
        raise InputError("the image cannot be decoded: it is cut off, damaged or of an unusual kind") from error


def looks_like_video(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` is a container with the frames inside.

    Only such a file may be given to a video library. Playlists are text, and would make the library open whatever
    files and addresses they name.
    """
    known = (b"\x1aE\xdf\xa3", b"GIF8", b"\0\0\1\xba", b"\0\0\1\xb3", b"0&\xb2u\x8ef\xcf\x11", b"FLV\1")
    boxes = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # MP4 and QuickTime
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    stream = head[:1] == b"G" and head[_TS_PACKET : _TS_PACKET + 1] == b"G"  # MPEG transport stream
    return head.startswith(known) or head[4:8] in boxes or riff or stream
