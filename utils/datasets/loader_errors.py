"""Errors of the data loader: workers that died, shared memory that is full, images that were removed."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from utils.core.errors import InputError
from utils.datasets.loader import Batch

_DIED = ("DataLoader worker", "Pin memory thread exited")  # how messages of torch about a dead worker begin
_SHARED = ("bus error", "shared memory", "shm")
_FILES = ("too many open files", "ancdata")  # batches are passed as open files


class NoBatchError(InputError):
    """The loader could not make the next batch; all steps on earlier batches are valid."""


def loader_failure(error: Exception) -> str:
    """Describe in one line, with the cure, what an error of torch or the system says about the workers.

    Torch reports a dead process from a signal handler, so the error may be raised anywhere in the main process.

    Returns:
        The line; "" for any other error.
    """
    if isinstance(error, InputError):
        return ""
    text = _message_of(error)
    lower = text.lower()
    first = text.splitlines()[0] if text else type(error).__name__
    if any(word in lower for word in _SHARED):
        return (
            f"a worker has no room in shared memory ({first}): fewer --workers or a smaller --batch-size need less of "
            "it, --workers 0 none; docker run --shm-size gives a container more"
        )
    if any(word in lower for word in _FILES):
        return f"the workers have too many open files ({first}): take fewer --workers, or raise ulimit -n"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return f"no memory for the workers ({first}): fewer --workers take less, --workers 0 takes none"
    if text.startswith(_DIED) or _lost_connection(error):
        return (
            f"a worker died ({first}), most likely because memory ran out: fewer --workers take less, --workers 0 "
            "takes none"
        )
    return ""


def _lost_connection(error: Exception) -> bool:
    """Whether a batch was held by a worker that died: to read it fails like a network connection."""
    nameless = isinstance(error, FileNotFoundError) and error.filename is None
    return nameless or isinstance(error, (ConnectionError, EOFError))


def iterate_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of a loader.

    Raises:
        NoBatchError: an image can no longer be read (the message names it), or a worker died.
    """
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:
        reason = loader_failure(error)
        if not reason and isinstance(error, RuntimeError):
            raise
        raise NoBatchError(reason or _message_of(error)) from error
    except InputError as error:
        raise NoBatchError(_message_of(error)) from error


def _message_of(error: Exception) -> str:
    """Return the message of an error, also of one that torch wraps into the traceback of a worker."""
    text = str(error).strip()
    return text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text
