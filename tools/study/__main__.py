"""Run a study: arms x learning rates x seeds x data sets, one training run per core side by side.

    python -m tools.study --plan tools/study/plan.yaml --output runs/study --jobs 2

It can be stopped at any time; the same command continues it: finished runs are kept, the others are resumed. Each
finished run is a line of ``results.csv`` at once. ``--summary`` makes tables and charts of the finished runs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tools.options import StudyOptions
from utils.config.cli import answer_early, run_script

answer_early(StudyOptions, __name__)

from tools.study.data import make_set
from tools.study.plan import Phase, Plan, Row, Run, load_plan, model_yaml
from tools.study.summary import write_summary
from tools.study.worker import RESULT, TASK
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.files import write_atomic
from utils.core.output import write_table

LOG = logging.getLogger(__name__)
COLUMNS = (
    "phase", "data", "arm", "lr0", "seed", "val_map", "val_map50", "test_map", "test_map50", "error",
    "test_map_mean_pi", "test_map_same_pi", "test_map_other_pi", "test_map_any_pi", "test_entropy", "test_entropy_low",
    "test_entropy_high", "test_sd_pi", "test_idle", "val_map_mean_pi", "val_map_same_pi", "val_map_other_pi",
    "val_map_any_pi", "val_entropy", "val_entropy_low", "val_entropy_high", "val_sd_pi", "val_idle", "parameters",
    "gflops", "minutes", "cpu_minutes", "commit", "run", "settings",
)  # fmt: skip


class Results:
    """``results.csv``: a line per finished run, written as soon as it is finished, remade from the run folders."""

    def __init__(self, output: Path) -> None:
        self.file, self.runs = output / "results.csv", output / "runs"
        self._lock = threading.Lock()
        self.rows: list[dict[str, str]] = []

    def collect(self, plan: Plan) -> None:
        """Read the results of the plan's finished runs, phase by phase."""
        self.rows = []
        for phase in plan.phases:
            try:
                runs = list(plan.runs(phase, self.rows))
            except InputError:  # it builds on a phase that has not begun
                continue
            self.rows += [self.row(run) for run in runs if self.done(run)]
        self._write()

    def done(self, run: Run) -> bool:
        return (self.runs / run.name / RESULT).exists()

    def add(self, run: Run) -> dict[str, str]:
        with self._lock:
            self.rows.append(self.row(run))
            self._write()
            return self.rows[-1]

    def row(self, run: Run) -> dict[str, str]:
        result = json.loads((self.runs / run.name / RESULT).read_text(encoding="utf-8"))
        known = {"phase": run.phase, "data": run.data, "arm": run.arm, "lr0": run.lr0, "seed": run.seed}
        known |= {"run": run.name, "settings": run.settings, **result}
        return {key: _text(known.get(key)) for key in COLUMNS}

    def _write(self) -> None:
        write_table(self.file, [COLUMNS, *(row.values() for row in self.rows)])


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


class Progress:
    """How far the study is, and when it will be done."""

    def __init__(self, plan: Plan, results: Results, jobs: int) -> None:
        self.plan, self.results, self.jobs = plan, results, jobs

    def left(self) -> int:
        """Runs of all phases that are not finished."""
        total = sum(self.plan.count(phase, self.results.rows) for phase in self.plan.phases)
        return max(0, total - len(self.results.rows))

    def line(self, row: Row) -> str:
        minutes = [float(each["minutes"]) for each in self.results.rows]
        hours = self.left() * sum(minutes) / len(minutes) / 60 / self.jobs
        result = row["error"] or f"val {float(row['val_map']):.4f}"  # the test score is for the summary
        return (
            f"{row['phase']}: {row['data']} {row['arm']} lr0 {row['lr0']} seed {row['seed']}: {result}, "
            f"{float(row['minutes']):.1f} min; {self.left()} runs left, about {hours:.1f} h by {self.jobs} at a time"
        )


class Pool:
    """Runs of a phase side by side, each in a separate process with one thread."""

    def __init__(self, plan: Plan, output: Path, jobs: int) -> None:
        self.plan, self.output, self.jobs = plan, output, jobs
        self.results = Results(output)
        self.progress = Progress(plan, self.results, jobs)
        self._running: set[subprocess.Popen[bytes]] = set()
        self.stopping = False

    def run(self, phase: Phase) -> list[str]:
        """Do what is left of a phase; returns the names of runs that failed."""
        pending = [run for run in self.plan.runs(phase, self.results.rows) if not self.results.done(run)]
        failed = []
        sets = {run.data: self._data_yaml(run) for run in {run.data: run for run in pending}.values()}
        with ThreadPoolExecutor(self.jobs) as threads:
            futures = {threads.submit(self._one, run, sets[run.data]): run for run in pending}
            for future in as_completed(futures):
                run = futures[future]
                if future.result() == 0 and self.results.done(run):
                    LOG.info(self.progress.line(self.results.add(run)))
                elif not self.stopping:
                    failed.append(run.name)
                    LOG.error("failed: %s, see %s", run.name, self.output / "runs" / run.name / "log.txt")
        return failed

    def stop(self, number: int, frame: Any) -> None:
        """Let the runs in progress save themselves, start no other."""
        self.stopping = True
        for process in tuple(self._running):  # other threads change the set
            process.send_signal(signal.SIGTERM)

    def _data_yaml(self, run: Run) -> str:
        """The data set of a run, made if there is none yet."""
        return run.source.yaml or str(make_set(run.data, self.output / "data", run.source.six_conditions_of))

    def _one(self, run: Run, data: str) -> int:
        if self.stopping:
            return 1
        folder = self.output / "runs" / run.name
        folder.mkdir(parents=True, exist_ok=True)
        task = {
            "yaml": data, "seed": run.seed, "train": dict(run.train), "hyp": dict(run.hyp), "model": model_yaml(run),
            "score": list(run.score),
        }  # fmt: skip
        write_atomic(folder / TASK, json.dumps(task).encode())
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "tools.study.worker", str(folder)]
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **threads}, stdout=log, stderr=log)
            self._running.add(process)
            if self.stopping:  # while it was being started
                process.send_signal(signal.SIGTERM)
            try:
                return process.wait()
            finally:
                self._running.discard(process)


def show(plan: Plan, rows: Sequence[Row]) -> None:
    """The phases, how many of their runs are done, and the arms."""
    for phase in plan.phases:
        done = sum(row["phase"] == phase.name for row in rows)
        LOG.info("%-14s %3d of %3d runs done: %s", phase.name, done, plan.count(phase, rows), ", ".join(phase.data))


def main(options: StudyOptions) -> int:
    plan, output = load_plan(options.plan), Path(options.output).resolve()
    unknown = [name for name in options.phases if name not in [phase.name for phase in plan.phases]]
    if unknown:
        raise InputError(f"--phases {unknown[0]}: {options.plan} has {', '.join(p.name for p in plan.phases)}")
    output.mkdir(parents=True, exist_ok=True)
    pool = Pool(plan, output, options.jobs)
    pool.results.collect(plan)
    if options.list:
        show(plan, pool.results.rows)
        return 0
    if options.summary:
        write_summary(plan, pool.results.rows, output)
        return 0
    before = {number: signal.signal(number, pool.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    failed: list[str] = []
    start = time.perf_counter()
    try:
        for phase in plan.phases:
            if (not options.phases or phase.name in options.phases) and not pool.stopping and not failed:
                LOG.info("phase %s: %d runs", phase.name, plan.count(phase, pool.results.rows))
                failed += pool.run(phase)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    LOG.info("%d runs are done, %.1f h", len(pool.results.rows), (time.perf_counter() - start) / 3600)
    write_summary(plan, pool.results.rows, output)
    return 1 if failed or pool.stopping else 0


if __name__ == "__main__":
    sys.exit(run_script(main, StudyOptions))
