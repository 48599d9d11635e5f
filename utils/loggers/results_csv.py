"""results.csv: a row of metrics per epoch, with the column names of v6.1 first."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable
from pathlib import Path

from utils.core.callbacks import Callback, FitEpochEnd, TrainStart
from utils.core.output import csv_text, write_table

logger = logging.getLogger(__name__)

RESULTS_CSV = "results.csv"
WITHOUT = "or omit the option; results.csv and the plots have the same values"  # for loggers that need a package
V61_COLUMNS = (
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
)


class ResultsCsv(Callback):
    """Appends a row after every epoch, and closes the file each time so that nothing is lost in a crash.

    A new run starts a new file. A resumed run keeps the header and the rows before the resumed epoch; later rows, and
    a line truncated by a crash, are removed. A value that is missing or nan is an empty cell.
    """

    def __init__(self) -> None:
        self._file = Path(RESULTS_CSV)
        self._columns: tuple[str, ...] = ()

    def on_train_start(self, event: TrainStart) -> None:
        """Clear the file, or keep the rows before the resumed epoch."""
        self._file = event.save_dir / RESULTS_CSV
        self._columns = keep_rows_before(self._file, event.resumed_epoch)

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """Append the row of an epoch; the first one determines the columns after those of v6.1."""
        if not self._columns:
            self._columns = (*V61_COLUMNS, *(name for name in event.row if name not in V61_COLUMNS))
            self._append(self._columns)
        unknown = [name for name in event.row if name not in self._columns]
        if unknown:
            logger.warning("%s has no column for %s, which is not written", self._file, ", ".join(unknown))
        cells = [number_cell(event.row.get(name, math.nan)) for name in self._columns]
        cells[self._columns.index("epoch")] = str(event.epoch)
        self._append(cells)

    def _append(self, cells: Iterable[str]) -> None:
        with self._file.open("a", newline="", encoding="utf-8") as stream:
            stream.write(csv_text([cells]))


def number_cell(value: float) -> str:
    """Return the cell of a number: six digits, empty for nan."""
    return "" if math.isnan(value) else f"{value:.6g}"


def keep_rows_before(file: Path, resumed_epoch: int) -> tuple[str, ...]:
    """Keep the rows before ``resumed_epoch`` of a table with the epoch in its first column; remove the file at 0.

    Returns:
        The header; () when there is none.
    """
    if resumed_epoch <= 0 or file.is_symlink():  # never append to the target of a link
        file.unlink(missing_ok=True)
    if not file.exists():
        return ()
    with file.open(newline="", encoding="utf-8") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row]
    kept = [row for row in rows[1:] if len(row) == len(rows[0]) and _epoch_of(row) < resumed_epoch]
    write_table(file, [*rows[:1], *kept])
    return tuple(rows[0]) if rows else ()


def _epoch_of(row: list[str]) -> float:
    """Return the epoch of a row; infinite, so that the row is removed, when it cannot be read."""
    try:
        return int(row[0])
    except ValueError:
        return float("inf")
