"""What keeps a loader from giving its next batch, told in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from utils.core.errors import InputError
from utils.datasets.loader_errors import NoBatchError, iterate_batches, loader_failure


class Failing:
    """A loader whose second batch fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        yield "first"
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("a.png: gone"), "^a.png: gone$"),
        (OSError("a.png: input/output error"), "^a.png: input/output error$"),
        (
            InputError("Caught InputError in DataLoader worker process 0.\n ...\nutils.errors.InputError: a.png: gone"),
            "^a.png: gone$",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\n"),
            r"^a worker died \(.* Killed\.\), most likely because memory ran out: fewer --workers .*--workers 0",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "a worker died .*--workers 0"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."),
            "no room in shared memory .*--workers or a smaller --batch-size .*--workers 0 none; docker run --shm-size",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nTraceback ...\nRuntimeError: unable to allocate "
                "shared memory(shm) for file </torch_1>: No space left on device (28)"
            ),
            "no room in shared memory .*</torch_1>: No space left on device.*--shm-size",
        ),
        (RuntimeError("received 0 items of ancdata"), "too many open files .*ulimit -n"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files .*ulimit -n"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "a worker died .*--workers 0"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "a worker died .*--workers 0"),
        (EOFError(), r"a worker died \(EOFError\)"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"), "No such file or directory: 'a.png'$"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory for the workers .*--workers 0"),
    ],
)
def test_a_batch_that_cannot_be_made_is_told_in_one_line_with_the_cure(error: Exception, message: str) -> None:
    batches = iterate_batches(Failing(error))  # type: ignore[arg-type]
    assert next(batches) == "first"
    with pytest.raises(NoBatchError, match=message) as caught:
        next(batches)
    assert "\n" not in str(caught.value)


def test_a_bug_is_not_hidden() -> None:
    assert loader_failure(RuntimeError("a bug")) == ""
    with pytest.raises(RuntimeError, match="a bug"):
        list(iterate_batches(Failing(RuntimeError("a bug"))))  # type: ignore[arg-type]
