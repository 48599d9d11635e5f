"""kill -9 of one of two processes of a run at random moments, --resume after each, and the end compared.

python tests/faults/rank_killed.py [--n 4] [--seed 0]

Exits with 1 when the other process goes on or waits, nobody says what happened, the last save is damaged, or the run
ends otherwise than an uninterrupted one (to the last digit). Needs /proc.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Run, check, equal_runs, make_set

from utils.checkpoint import load_checkpoint

EPOCHS = 5
PATIENCE_S = 45  # torchrun gives the others 30 seconds


class TwoRanks(Run):
    """A run of two processes."""

    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")

    def rank(self, number: int) -> int:
        """The process id of a rank, 0 when it is not there."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if parent == self.process.pid and f"RANK={number}".encode() in words:
                return int(folder.name)
        return 0


def some_saves(run: Run, rng: np.random.Generator) -> bool:
    """Wait for some saves and a moment more; False when the run ended before."""
    seen, count = set(), int(rng.integers(1, 6))

    def enough() -> bool:
        if run.last.exists():
            seen.add(run.last.stat().st_mtime_ns)
        return len(seen) > count

    happened = run.wait_for(enough)
    time.sleep(rng.uniform(0, 0.5))
    return happened and run.process.poll() is None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=4, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, fine = np.random.default_rng(args.seed), True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, options = make_set(folder / "set"), (f"--epochs={EPOCHS}", "--save-steps=1", "--workers=1")
        whole = TwoRanks(folder / "runs", "whole", data, *options)
        whole.start()
        fine &= check("the uninterrupted run ends with code 0", whole.wait() == 0)
        run = TwoRanks(folder / "runs", "killed", data, *options)
        for number in range(args.n):
            run.resume()
            if not some_saves(run, rng):
                break  # it ended before
            victim = run.rank(number % 2)
            os.kill(victim, signal.SIGKILL)
            start = time.monotonic()
            code = run.wait()
            seconds = time.monotonic() - start
            message = run.line("error:")
            print(f"        rank {number % 2} killed after {len(run.rows())} epochs: {message}", flush=True)
            fine &= check(f"all ends within {seconds:.0f} s, with code {code}", code != 0 and seconds < PATIENCE_S)
            fine &= check("the other one says so, and how to go on", "is gone" in message and "--resume" in message)
            fine &= check("the last save is whole", load_checkpoint(run.last).resumable)
        else:
            run.resume()
            fine &= check("the run comes to its end", run.wait() == 0)
        fine &= check("and equals the uninterrupted one to the last digit", equal_runs(whole, run))
        if not fine:
            print(run.log.read_text(encoding="utf-8")[-5000:])
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
