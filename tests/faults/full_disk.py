"""A disk without room for checkpoints, to the end or for a while (a limit of the file size stands for it; Linux).

python tests/faults/full_disk.py
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from common import Run, check, make_set

from utils.checkpoint import load_checkpoint

ROOM = 2**20  # bytes: tables and pictures fit, checkpoints do not
EPOCHS = 10


def limit(run: Run, size: int) -> None:
    """Let files of the running process grow to ``size`` bytes only."""
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def until_row(run: Run, count: int) -> bool:
    return run.wait_for(lambda: len(run.rows()) >= count)


def main() -> int:
    fine = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_set(folder / "set")
        for case in ("to the end", "for a while"):
            run = Run(folder / "runs", case.replace(" ", "_"), data, f"--epochs={EPOCHS}")
            run.start()
            fine &= check(f"full {case}: an epoch with room", until_row(run, 1) and run.wait_for(run.last.exists))
            limit(run, ROOM)
            fine &= check("the run goes on without", until_row(run, 3))
            fine &= check(run.line("could not be written"), bool(run.line("could not be written")))
            for _ in range(3):  # whole whenever one looks
                load_checkpoint(run.last)
                time.sleep(0.01)
            if case == "for a while":
                limit(run, resource.RLIM_INFINITY)
            code, rows = run.wait(), len(run.rows())
            fine &= check(f"exit code {code} after {rows} of {EPOCHS} epochs", rows == EPOCHS)
            fine &= check("no draft is left behind", not list(run.folder.rglob(".*.tmp")))
            state = load_checkpoint(run.last)
            done = state.train_state["epoch"] + 1
            if case == "for a while":
                fine &= check("it ended well", code == 0 and done == EPOCHS)
                continue
            fine &= check(run.line("error:"), code == 1)
            fine &= check(f"last.pt is that of epoch {done}", state.resumable and done < EPOCHS)
            run.resume()
            fine &= check("with room again, --resume does the rest", run.wait() == 0 and len(run.rows()) == EPOCHS)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
