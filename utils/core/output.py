"""Output of commands: in one folder, never over an input file, and never together with another run in that folder."""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from utils.core.errors import InputError
from utils.core.files import increment_path, write_atomic
from utils.core.names import csv_cell

LOG = logging.getLogger(__name__)
LOCK_FILE = ".lock"  # exists in a run folder while a process works there
_HELD: dict[str, int] = {}  # folder that this process has locked -> handle of the lock file


class OutputFolder:
    """The folder that a command writes to; :meth:`path` checks every path below it.

    Args:
        folder: made with the first path.
        inputs: returns the files that the command reads; called once, when an output file exists already.
    """

    def __init__(self, folder: str | Path, inputs: Callable[[], Iterable[str | Path]] = tuple) -> None:
        self.folder = Path(folder)
        self._inputs = inputs
        self._known: dict[tuple[int, int], str] | None = None

    @classmethod
    def of(cls, folder: Path | OutputFolder) -> OutputFolder:
        """Return ``folder`` itself, or an output folder without input files."""
        return folder if isinstance(folder, OutputFolder) else cls(folder)

    def below(self, name: str) -> OutputFolder:
        """Return the folder ``name`` in this one, with the same inputs. Raises InputError: a link leads elsewhere."""
        return OutputFolder(self.path(name), self._inputs)

    def path(self, relative: str | PurePath, make: bool = True) -> Path:
        """Return the path ``relative`` below the folder; its parent folder is made, unless ``make`` is off.

        Raises:
            InputError: the path is outside the folder, by ``..`` or by a link, or it is an input file, under any name.
        """
        inside, target = Path(relative), self.folder / relative
        if inside.is_absolute() or inside.drive or ".." in inside.parts or "\0" in str(inside):
            raise InputError(f"{relative}: leads out of the output folder {self.folder}; nothing is written there")
        real, root = Path(os.path.realpath(target)), Path(os.path.realpath(self.folder))
        if real != root and root not in real.parents:
            raise InputError(f"{target}: a link leads to {real}, out of the output folder; remove the link")
        if make:
            target.parent.mkdir(parents=True, exist_ok=True)
        if (owner := self._input_at(target)) is not None:
            raise InputError(f"{target}: would overwrite the input {owner}; choose another output folder")
        return target

    def _input_at(self, target: Path) -> str | None:
        """Return the input file that ``target`` is, under this or another name."""
        try:
            existing = target.stat()
        except FileNotFoundError:
            return None
        if self._known is None:
            self._known = {}
            for name in self._inputs():
                with suppress(OSError, ValueError):
                    state = os.stat(name)  # noqa: PTH116  (faster for many files)
                    self._known[state.st_dev, state.st_ino] = str(name)
        return self._known.get((existing.st_dev, existing.st_ino))


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of cells as csv text; names are made safe by :func:`utils.core.names.csv_cell`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def write_table(file: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of cells, the header first, as a csv file, completely or not at all."""
    write_atomic(file, csv_text(rows).encode())


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a new folder below ``parent``, and remove it with its content at the end, also after a signal."""
    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    try:
        folder.mkdir(0o700)  # inside the try: a signal may come at once
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Run folders ----------------------------------------------------------------------------------------------------------


@contextmanager
def run_folder(project: str, name: str, exist_ok: bool) -> Iterator[Path]:
    """Make the folder of a run, and lock it for the body of the ``with`` statement.

    Raises:
        InputError: another process works in it.
    """
    folder = increment_path(Path(project) / name, exist_ok, mkdir=True)
    lock_folder(folder)
    try:
        yield folder
    finally:
        unlock_folder(folder)


def lock_folder(folder: Path) -> None:
    """Lock a folder for this process until :func:`unlock_folder` or the end of the process.

    If files cannot be locked (some network drives, read-only folders), there is a warning and no lock.

    Raises:
        InputError: another process has locked it.
    """
    key = os.path.realpath(folder)
    if key in _HELD:
        return
    try:
        handle = _open_locked(os.path.join(key, LOCK_FILE))  # noqa: PTH118
    except BlockingIOError as error:
        raise InputError(
            f"{folder}: another run is writing there; wait for its end, or choose another --name"
        ) from error
    except OSError as error:
        LOG.warning("%s: cannot be locked (%s): do not start a second run there", folder, error.strerror or error)
    else:
        _HELD[key] = handle


def _open_locked(file: str) -> int:
    """Open and lock a lock file, and return its handle; BlockingIOError when another process has the lock."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _lock_file(handle)
            with suppress(FileNotFoundError):  # another process has just removed the file
                if os.path.samestat(os.fstat(handle), os.stat(file)):  # noqa: PTH116
                    return handle
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise BlockingIOError from error
            raise
        os.close(handle)


def _lock_file(handle: int) -> None:
    """Lock an open file for this process; OSError when another process has locked it.

    The lock ends with the process; workers that are forked later do not inherit it.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_folder(folder: Path | None = None) -> None:
    """Unlock a folder, or all folders of this process."""
    for key in list(_HELD) if folder is None else [os.path.realpath(folder)]:
        handle = _HELD.pop(key, None)
        if handle is None:
            continue
        if os.name != "nt":  # an open file cannot be removed there
            with suppress(OSError):
                os.unlink(os.path.join(key, LOCK_FILE))  # noqa: PTH108, PTH118
        os.close(handle)
