"""kill -9 at random moments, --resume after each, and the end compared with an uninterrupted run.

python tests/faults/kill9.py [--n 8] [--seed 0]

Exits with 1 when a run does not end, or ends otherwise than the uninterrupted one (to the last digit).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Run, check, equal_runs, make_set

EPOCHS = 6


def at_any_time(run: Run, rng: np.random.Generator, seconds: float) -> bool:
    """Wait for a random moment between start and end; False when the run ended before."""
    limit = time.monotonic() + rng.uniform(0.1, 1.0) * seconds
    return run.wait_for(lambda: time.monotonic() > limit)


def after_saves(run: Run, rng: np.random.Generator, _: float) -> bool:
    """Wait for one to ten saves and a moment more, which may fall into the next one."""
    seen = {run.last.stat().st_mtime_ns if run.last.exists() else 0}
    count = int(rng.integers(1, 11))

    def enough() -> bool:
        if run.last.exists():
            seen.add(run.last.stat().st_mtime_ns)
        return len(seen) > count

    happened = run.wait_for(enough)
    time.sleep(rng.uniform(0, 0.3))
    return happened and run.process.poll() is None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=8, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    fine, kills, rounds = True, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, options = make_set(folder / "set"), (f"--epochs={EPOCHS}", "--save-steps=1")
        whole = Run(folder / "runs", "whole", data, *options)
        start = time.monotonic()
        whole.start()
        fine &= check("the uninterrupted run ends with code 0", whole.wait() == 0)
        seconds = time.monotonic() - start
        while kills < args.n and fine:
            rounds += 1
            run = Run(folder / "runs", f"killed{rounds}", data, *options)
            while kills < args.n:
                run.resume()
                if not (after_saves if kills % 4 else at_any_time)(run, rng, seconds):
                    break  # it ended before
                run.kill()
                kills += 1
                print(f"        kill {kills} after {len(run.rows())} epochs", flush=True)
            if run.process.returncode != 0:
                run.resume()
                code = run.wait()
                over = code == 0 or "this run is finished" in run.line("error:")  # killed after the last write
                fine &= check(f"run {rounds} comes to its end", over)
            fine &= check(f"run {rounds} equals the uninterrupted one to the last digit", equal_runs(whole, run))
            fine &= check("no draft is left behind", not list(run.folder.rglob(".*.tmp")))
        if not fine:
            print(run.log.read_text(encoding="utf-8")[-3000:])
    print(f"{kills} kills in {rounds} runs")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
