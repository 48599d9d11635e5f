"""Evaluate and time every format of a model.

    python -m tools.benchmark --weights runs/train/exp/weights/best.pt --data my.yaml --imgsz 640
    python -m tools.benchmark --weights best.pt --hard-fail 0.25     # exit code 1 below that mAP or if a format fails

All run at one fixed size with square images, so that the numbers can be compared. The files, ``benchmarks.txt``,
``benchmarks.csv`` and ``benchmarks.png`` go to ``runs/benchmarks/exp``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # python tools/benchmark.py: the packages lie beside its folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.options import BenchmarkOptions
from utils.config.cli import EXIT_INPUT, answer_early, parse, run_script

answer_early(BenchmarkOptions, __name__)

from models.user_modules import load_modules
from utils.checkpoint import load_checkpoint
from utils.checkpoint.detector import newest_checkpoint
from utils.config.keywords import options_from
from utils.config.paths import ROOT, TRAIN_RUNS
from utils.core.device import select_device
from utils.core.files import write_atomic
from utils.core.output import run_folder, write_table
from utils.export import ExportResult, export_checkpoint, format_results, log_results
from utils.plots.compare import Panel, plot_comparison

LOG = logging.getLogger(__name__)


def write_benchmark_files(rows: Sequence[ExportResult], folder: Path) -> None:
    """The table as text, as csv with all digits, and as an image of what runs here."""
    write_atomic(folder / "benchmarks.txt", ("\n".join(format_results(rows)) + "\n").encode())
    lines = [["format", "file", "MB", "difference", "ms", "map50", "map", "note"]]
    for row in rows:
        values = (row.megabytes, row.worst, row.ms, row.map50, row.map)
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        lines.append([row.format, row.path.name if row.path else "", *cells, row.note])
    write_table(folder / "benchmarks.csv", lines)
    ran = [row for row in rows if row.ran]
    panels = [
        _panel("ms per image", [row.ms for row in ran], ".1f"),
        _panel("mAP@.5:.95", [row.map for row in ran], ".3f"),
        _panel("MB", [row.megabytes for row in ran], ".1f"),
    ]
    plot_comparison([row.format for row in ran], panels, folder / "benchmarks.png")


def _panel(title: str, values: Sequence[float | None], form: str) -> Panel:
    """A panel of the plot; an unknown value has a dash in place of its bar."""
    return Panel(title, [v or 0.0 for v in values], ["-" if v is None else format(v, form) for v in values])


def shortfalls(rows: Sequence[ExportResult], floor: float) -> list[str]:
    """Why ``--hard-fail`` fails; formats that need a missing package or system are ignored."""
    failed = [f"{row.format}: {row.note}" for row in rows if not row.made and not row.impossible]
    low = [row for row in rows if row.map is not None and row.map < floor]
    return failed + [f"{row.format}: mAP@.5:.95 {row.map:.3f} is below {floor:g}" for row in low]


def main(options: BenchmarkOptions) -> int:
    rows = benchmark(options)
    objections = [] if options.hard_fail is None else shortfalls(rows, options.hard_fail)
    for objection in objections:
        LOG.error("--hard-fail: %s", objection)
    return EXIT_INPUT if objections else 0


def benchmark(options: BenchmarkOptions) -> list[ExportResult]:
    """Make, evaluate and time every format; returns the rows of the table, which is also written."""
    load_modules(options.modules)
    device = select_device(options.device)
    weights = Path(options.weights) if options.weights else newest_checkpoint(TRAIN_RUNS, "best.pt")
    data = options.data or load_checkpoint(weights).options.get("data") or ROOT / "data/digits.yaml"
    with run_folder(options.project, options.name, options.exist_ok) as folder:
        rows = export_checkpoint(weights, options.export_options(str(data), str(folder)), device)
        log_results(rows)
        write_benchmark_files(rows, folder)
        LOG.info("results are in %s", folder)
    return rows


def run(**options: Any) -> list[ExportResult]:
    """Benchmarks from Python, with the options by their names: ``benchmarks.run(weights="best.pt", imgsz=320)``."""
    return benchmark(options_from(BenchmarkOptions, options))


def parse_opt(argv: Sequence[str] | None = None) -> BenchmarkOptions:
    """The options of a command line, by default that of this process."""
    return parse(BenchmarkOptions, argv)


if __name__ == "__main__":
    sys.exit(run_script(main, BenchmarkOptions))
