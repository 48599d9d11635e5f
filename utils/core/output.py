"""Where a command writes: in its own folder, never over what it reads, and never beside another run in that folder."""

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
LOCK_FILE = ".lock"  # of a run folder, there while a process works in it
_HELD: dict[str, int] = {}  # folders that this process has locked -> handle of the lock file


class OutputFolder:
    """The folder that a command writes into; every path below it is made by :meth:`path`.

    Args:
        folder: made when the first path is asked for.
        inputs: gives the files that the command reads. Asked once, when an output file is there already.
    """

    def __init__(self, folder: str | Path, inputs: Callable[[], Iterable[str | Path]] = tuple) -> None:
        self.folder = Path(folder)
        self._inputs = inputs
        self._known: dict[tuple[int, int], str] | None = None

    @classmethod
    def of(cls, folder: Path | OutputFolder) -> OutputFolder:
        """``folder`` itself, or a folder for output without inputs to be spared."""
        return folder if isinstance(folder, OutputFolder) else cls(folder)

    def below(self, name: str) -> OutputFolder:
        """The folder ``name`` in this one, with the same inputs. Raises InputError: a link leads elsewhere."""
        return OutputFolder(self.path(name), self._inputs)

    def path(self, relative: str | PurePath, make: bool = True) -> Path:
        """The file ``relative`` below the folder; its own folder is made, unless ``make`` is off.

        Raises:
            InputError: it would lie elsewhere, by its parts or by a link on the way, or it is a file that is read,
                under whatever name.
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
        """The input that lies at ``target``, under this or another name."""
        try:
            found = target.stat()
        except FileNotFoundError:
            return None
        if self._known is None:
            self._known = {}
            for name in self._inputs():
                with suppress(OSError, ValueError):
                    state = os.stat(name)  # noqa: PTH116  (of very many files)
                    self._known[state.st_dev, state.st_ino] = str(name)
        return self._known.get((found.st_dev, found.st_ino))


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of cells as they stand in a table; names in them are harmless, see :func:`utils.core.names.csv_cell`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def write_table(file: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of cells, the header first, as a csv file that is there whole or not at all."""
    write_atomic(file, csv_text(rows).encode())


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder below ``parent``, gone with all that is in it at the end, also when a signal ends the program."""
    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    try:
        folder.mkdir(0o700)  # within: a signal may come as soon as it is there
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Run folders ----------------------------------------------------------------------------------------------------------


@contextmanager
def run_folder(project: str, name: str, exist_ok: bool) -> Iterator[Path]:
    """The folder of a run, made and locked while the body of the ``with`` is running.

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
    """Keep other processes out of a folder until :func:`unlock_folder`, or the end of this process, however it ends.

    Where files cannot be locked (some network drives, read-only folders) there is a warning and no lock.

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
    """A handle of the lock file, locked; BlockingIOError when another process has the lock."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _take(handle)
            with suppress(FileNotFoundError):  # the one who had the lock has just removed the file
                if os.path.samestat(os.fstat(handle), os.stat(file)):  # noqa: PTH116
                    return handle
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise BlockingIOError from error
            raise
        os.close(handle)


def _take(handle: int) -> None:
    """Lock an open file for this process; OSError when another one has it.

    The lock belongs to the process: it dies with it, and loader processes that are forked later do not keep it.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_folder(folder: Path | None = None) -> None:
    """Let others into a folder again, or into all folders of this process."""
    for key in list(_HELD) if folder is None else [os.path.realpath(folder)]:
        handle = _HELD.pop(key, None)
        if handle is None:
            continue
        if os.name != "nt":  # an open file cannot be removed there
            with suppress(OSError):
                os.unlink(os.path.join(key, LOCK_FILE))  # noqa: PTH108, PTH118
        os.close(handle)
