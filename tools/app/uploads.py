"""Bodies of requests on their way, and the places of those that are complete."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from utils.core.errors import InputError
from utils.inference.uploads import UploadTooLargeError

GRACE_S, SLOWEST = 10.0, 16_000  # an upload may stop for this long at most, and has to bring so many bytes a second
WAIT_S = 60.0  # for a place
_IN_MEMORY = 1 << 18  # bytes of one upload; what is longer goes to disk
_READ_ON = 4  # up to so many times the allowed size is read and thrown away: browsers listen when they have sent all


class RefusedError(Exception):
    """A request that is not fulfilled: HTTP status, and a sentence for the person who asked."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def answer_to(problem: Exception) -> tuple[int, str]:
    """HTTP status of a request that failed, and a sentence for the person who asked."""
    if isinstance(problem, RefusedError):
        return problem.status, problem.detail
    if isinstance(problem, InputError):
        return 413 if isinstance(problem, UploadTooLargeError) else 400, str(problem)
    if type(problem).__name__ == "ClientDisconnect":
        return 400, "the upload was broken off"
    return 500, "something went wrong here; the terminal says what"


class Uploads:
    """Receives bodies of requests into temporary files, within limits of size and time, and of all of them together.

    Args:
        most: bytes of one.
        flag: the option that sets ``most``, for the message.
        together: bytes of all that have begun and are not yet dealt with.
        folder: where the files lie; None: where the system has its own.
    """

    def __init__(self, most: int, flag: str, together: int, folder: Path | None = None) -> None:
        self.most, self.flag, self.together, self.folder = most, flag, together, folder
        self.held = 0

    @contextlib.asynccontextmanager
    async def receive(self, request: Any) -> AsyncIterator[IO[bytes]]:
        """The whole body of a Starlette request, as a file at its start; gone when the ``with`` ends.

        Raises:
            RefusedError: too many bytes, here or in all uploads together, or too slow.
        """
        size = kept = 0
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.folder) if self.folder else None) as file:
            try:
                async for part in _in_time(request.stream()):
                    size += len(part)
                    if size > _READ_ON * self.most:
                        break
                    if size <= self.most:
                        file.write(part)
                        kept += len(part)
                        self.held += len(part)
                        if self.held > self.together:
                            raise RefusedError(503, "too many uploads are on their way; try again in a moment")
                if size > self.most:
                    raise RefusedError(
                        413, f"the file has more than {self.most / 1e6:g} MB, which is what {self.flag} allows"
                    )
                file.seek(0)
                yield file
            finally:
                self.held -= kept


async def _in_time(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``parts`` as long as they come fast enough. Raises RefusedError: they do not."""
    loop = asyncio.get_running_loop()
    due = loop.time() + GRACE_S
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), due - loop.time())
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise RefusedError(408, "the upload is too slow; send it again over a faster connection") from None
        # What has come fast buys no more time than there was at the start: else it would be a place held for hours.
        due = min(due + len(part) / SLOWEST, loop.time() + GRACE_S)
        yield part


class Places:
    """So many uploads are worked on at a time; the others wait in a queue, where they need no memory."""

    def __init__(self, count: int) -> None:
        self._count, self._free = count, asyncio.Semaphore(count)

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A place, from here to the end of the ``with``.

        Raises:
            RefusedError: none became free in time.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), WAIT_S)
        except asyncio.TimeoutError:
            raise RefusedError(503, f"{self._count} pictures are being looked at; try again in a moment") from None
        try:
            yield
        finally:
            self._free.release()
