"""A disk without room for checkpoints, to the end or for a while.

The disk is a tmpfs of some megabytes, filled and emptied by a file beside the run. Where none may be mounted (that
takes root), a limit of the file size stands for it. Linux.

python tests/faults/full_disk.py [--limit]
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from common import Run, check, make_set

from utils.checkpoint import load_checkpoint

ROOM = 2**20  # bytes: tables and images fit, checkpoints do not
EPOCHS = 10
DISK_MB = 160  # for last.pt and best.pt with their optimizer, and a draft of each


class Disk(Protocol):
    """Where a run writes; it can be made full while it goes on."""

    folder: Path

    def fill(self, run: Run) -> None: ...

    def empty(self, run: Run) -> None: ...


class Limited:
    """Any folder: files of the running process grow to ``ROOM`` bytes only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, run: Run) -> None:
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))

    def empty(self, run: Run) -> None:
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Tmpfs:
    """A mounted tmpfs, with a file that takes all but ``ROOM`` bytes of what is free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self, run: Run) -> None:
        with self.filler.open("wb") as stream:
            try:
                while True:
                    stream.write(bytes(2**16))
                    stream.flush()
            except OSError as error:
                assert error.errno == errno.ENOSPC
        size = self.filler.stat().st_size
        os.truncate(self.filler, max(0, size - ROOM))

    def empty(self, run: Run) -> None:
        self.filler.unlink(missing_ok=True)


@contextlib.contextmanager
def disk(folder: Path, limit: bool) -> Iterator[Disk]:
    """A small disk below ``folder``, a real one if it may be mounted."""
    place = folder / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    try:
        if not limit:
            subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"        no tmpfs here ({error}): a limit of the file size stands for it", flush=True)
        limit = True
    if limit:
        yield Limited(place)
        return
    try:
        yield Tmpfs(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def until_row(run: Run, count: int) -> bool:
    return run.wait_for(lambda: len(run.rows()) >= count)


def full(place: Disk, data: Path, case: str) -> bool:
    """One run on a disk that is full after its first epoch, ``to the end`` or ``for a while``."""
    run = Run(place.folder / "runs", case.replace(" ", "_"), data, f"--epochs={EPOCHS}")
    run.start()
    fine = check(f"full {case}: an epoch with room", until_row(run, 1) and run.wait_for(run.last.exists))
    place.fill(run)
    seen = len(run.rows())
    fine &= check("the run goes on without", until_row(run, min(seen + 2, EPOCHS)))
    fine &= check(run.line("could not be written"), bool(run.line("could not be written")))
    for _ in range(3):  # whole whenever one looks
        load_checkpoint(run.last)
        time.sleep(0.01)
    if case == "for a while":
        place.empty(run)
    code, rows = run.wait(), len(run.rows())
    fine &= check(f"exit code {code} after {rows} of {EPOCHS} epochs", rows == EPOCHS)
    fine &= check("no draft is left behind", not list(run.folder.rglob(".*.tmp")))
    state = load_checkpoint(run.last)
    done = state.train_state["epoch"] + 1
    if case == "for a while":
        return fine & check("it ended well", code == 0 and done == EPOCHS)
    fine &= check(run.line("error:"), code == 1)
    fine &= check(f"last.pt is that of epoch {done}", state.resumable and done < EPOCHS)
    place.empty(run)
    run.resume()
    return fine & check("with room again, --resume does the rest", run.wait() == 0 and len(run.rows()) == EPOCHS)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", action="store_true", help="no tmpfs, a limit of the file size")
    args = parser.parse_args()
    fine = True
    for case in ("to the end", "for a while"):
        with tempfile.TemporaryDirectory() as name, disk(Path(name), args.limit) as place:
            print(f"on {type(place).__name__}", flush=True)
            fine &= full(place, make_set(Path(name) / "set"), case)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
