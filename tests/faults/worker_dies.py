"""A loader process is killed in an epoch (kill -9, as the system does when memory runs out), or finds no room in shared
memory; the message names the cure, the last save is whole, and the run ends as if nothing had been.

python tests/faults/worker_dies.py [--n 4] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Run, check, equal_runs, make_set

from utils.checkpoint import load_checkpoint

INSIDE = "--inside"
ROOM_KB = 200  # of shared memory; a batch of two images of 64 px has 24


def loader_processes(parent: int) -> list[int]:
    """Children of the training process (Linux); torch's resource tracker is none that loads."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
    found = []
    for child in map(int, children):
        with contextlib.suppress(OSError):  # gone meanwhile
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def kill_one(run: Run, rng: np.random.Generator) -> bool:
    """Kill a loader process at a random moment; False when the run ended before."""
    rows = len(run.rows()) + int(rng.integers(0, 2))
    run.wait_for(lambda: bool(loader_processes(run.process.pid)) and len(run.rows()) >= rows)
    time.sleep(rng.uniform(0, 0.5))
    while run.process.poll() is None:
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or none there at the moment
            os.kill(int(rng.choice(loader_processes(run.process.pid))), signal.SIGKILL)
            return True
    return False


def deaths(folder: Path, count: int, seed: int) -> bool:
    """Kill loader processes of one run until it has happened ``count`` times, going on after each."""
    rng, options = np.random.default_rng(seed), ("--epochs=12",)
    whole = Run(folder / "runs", "whole", folder / "set/data.yaml", *options)
    whole.start()
    fine = check("the undisturbed run ends with code 0", whole.wait() == 0)
    run, killed = Run(folder / "runs", "robbed", folder / "set/data.yaml", *options), 0
    while killed < count and fine:
        run.resume()
        if not kill_one(run, rng):
            break
        killed += 1
        code, message = run.wait(), run.line("error:")
        print(f"        {message}", flush=True)
        fine &= check(f"kill {killed} after {len(run.rows())} epochs: exit code {code}", code == 1)
        fine &= check("the cure is named", "--workers 0" in message and ("--resume" in message or "again" in message))
        if run.last.exists():
            state = load_checkpoint(run.last)
            done = state.train_state.get("position", {}).get("batches", 0)
            print(f"        last.pt: epoch {state.train_state['epoch'] + 1} and {done} batches", flush=True)
    if run.process.returncode != 0:
        run.resume()
    fine &= check(f"after {killed} kills the run comes to its end", run.wait() == 0)
    fine &= check("and equals the undisturbed one to the last digit", equal_runs(whole, run))
    without = Run(folder / "runs", "without", folder / "set/data.yaml", *options, "--workers=0")
    without.start()
    return check("so does one with --workers 0", without.wait() == 0 and equal_runs(whole, without)) and fine


def no_shared_memory(folder: Path) -> bool:
    """A run in a system whose shared memory is as small as ROOM_KB, and fills up while it is on its way."""
    small = Run(folder / "runs", "small", folder / "set/data.yaml", "--epochs=3")
    small.start()
    fine = check("little shared memory at the start: the run ends with code 0", small.wait() == 0)
    fine &= check(small.line("--shm-size"), "using" in small.line("--shm-size"))
    full = Run(folder / "runs", "full", folder / "set/data.yaml", "--epochs=200")
    full.start()
    full.wait_for(lambda: len(full.rows()) >= 1)
    ballast = Path("/dev/shm/ballast")
    with contextlib.suppress(OSError), ballast.open("wb") as stream:
        while True:  # somebody else takes all there is
            stream.write(bytes(4096))
            stream.flush()
    code, message = full.wait(), full.line("error:")
    fine &= check(f"{message}", code == 1 and "shared memory" in message and "--workers 0" in message)
    full.start(f"--resume={full.last}", "--workers=0", f"--epochs={len(full.rows()) + 2}")
    return check("without loader processes it goes on and ends with code 0", full.wait() == 0) and fine


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=4, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(folder / "set")
        if args.inside:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM_KB}k", "tmpfs", "/dev/shm"], check=True)
            return 0 if no_shared_memory(folder) else 1
        fine = deaths(folder, args.n, args.seed)
    alone = [shutil.which("unshare") or "", "-rm"]  # mounts that nobody else sees and that end with the process
    if not alone[0] or subprocess.run([*alone, "true"], capture_output=True).returncode:
        print("skipped: no unshare, so /dev/shm cannot be made small")
    else:
        fine &= subprocess.run([*alone, sys.executable, __file__, INSIDE]).returncode == 0
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
