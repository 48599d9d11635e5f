"""Batches from a loader whose processes may die or find an image gone, with errors that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from utils.core.errors import InputError
from utils.datasets.loader import Batch

_DIED = ("DataLoader worker", "Pin memory thread exited")  # how torch begins to tell of a dead loader process
_SHARED = ("bus error", "shared memory", "shm")
_FILES = ("too many open files", "ancdata")  # batches are handed over as open files


class NoBatchError(InputError):
    """The loader could not make the next batch; what has been done with those before it is sound."""


def loader_failure(error: Exception) -> str:
    """What an error of torch or the system says about the loader processes, in one line with its cure; "" if nothing.

    Torch reports a dead process by a signal handler, so the error may come up anywhere in the main process.
    """
    if isinstance(error, InputError):
        return ""
    text = _own_words(error)
    lower = text.lower()
    first = text.splitlines()[0] if text else type(error).__name__
    if any(word in lower for word in _SHARED):
        return (
            f"a loader process found no room in shared memory ({first}): fewer --workers or a smaller --batch-size "
            "need less of it, --workers 0 none; docker run --shm-size gives a container more"
        )
    if any(word in lower for word in _FILES):
        return f"the loader processes have too many open files ({first}): take fewer --workers, or raise ulimit -n"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return f"no memory for the loader processes ({first}): fewer --workers take less, --workers 0 takes none"
    if text.startswith(_DIED) or _lost_connection(error):
        return (
            f"a loader process died ({first}), most likely for want of memory: fewer --workers take less, --workers 0 "
            "takes none"
        )
    return ""


def _lost_connection(error: Exception) -> bool:
    """Whether a batch lay with a process that is gone: asking it fails like a call on the network."""
    nameless = isinstance(error, FileNotFoundError) and error.filename is None
    return nameless or isinstance(error, (ConnectionError, EOFError))


def iterate_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a loader.

    Raises:
        NoBatchError: an image cannot be read any more, which the message names, or a loader process is gone.
    """
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:
        reason = loader_failure(error)
        if not reason and isinstance(error, RuntimeError):
            raise
        raise NoBatchError(reason or _own_words(error)) from error
    except InputError as error:
        raise NoBatchError(_own_words(error)) from error


def _own_words(error: Exception) -> str:
    """The message of an error, also of one that a loader process wraps into its traceback."""
    text = str(error).strip()
    return text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text
