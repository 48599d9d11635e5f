"""The table of an export: for each format the file, its size, time and difference to PyTorch, or why it is missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOG = logging.getLogger(__name__)
RESULT_COLUMNS = ("format", "file", "MB", "difference", "allowed", "ms", "mAP@.5", "mAP@.5:.95", "")


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """One format of one model.

    Attributes:
        format: its name.
        path: the file or folder, None when it was not made.
        worst, limit: largest difference to PyTorch and what is allowed of it, see :class:`utils.export.check.Proof`.
        ms: per image; like ``worst`` None for a file that does not run on this system.
        map50, map: on the set of ``--data``, None without.
        note: a remark, or the reason why there is no file.
        impossible: it was not tried, since a package, device or system is missing.
    """

    format: str
    path: Path | None = None
    worst: float | None = None
    limit: float | None = None
    ms: float | None = None
    map50: float | None = None
    map: float | None = None
    note: str = ""
    impossible: bool = False

    @property
    def made(self) -> bool:
        return self.path is not None

    @property
    def ran(self) -> bool:
        """Whether there is a file, and this system can use it."""
        return self.made and self.ms is not None

    @property
    def megabytes(self) -> float | None:
        """Size of the file, or of all files of the folder."""
        if self.path is None:
            return None
        files = [self.path] if self.path.is_file() else [file for file in self.path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / 1e6

    def cells(self) -> tuple[str, ...]:
        """The texts of the columns."""
        note = self.note if self.made else f"not made: {self.note}"
        return (
            self.format,
            self.path.name if self.path else "-",
            _text(self.megabytes, ".1f"),
            _text(self.worst, ".1e"),
            _text(self.limit, ".1e"),
            _text(self.ms, ".1f"),
            _text(self.map50, ".3f"),
            _text(self.map, ".3f"),
            note,
        )


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def format_results(rows: Sequence[ExportResult]) -> list[str]:
    """Lines of text in columns; columns that are empty in all rows are dropped."""
    cells = [RESULT_COLUMNS, *(row.cells() for row in rows)]
    kept = [i for i in range(len(RESULT_COLUMNS)) if i < 2 or any(line[i] not in ("", "-") for line in cells[1:])]
    widths = {i: max(len(line[i]) for line in cells) for i in kept}
    left = (0, 1, len(RESULT_COLUMNS) - 1)
    lines = [
        "  ".join(line[i].ljust(widths[i]) if i in left else line[i].rjust(widths[i]) for i in kept) for line in cells
    ]
    return [line.rstrip() for line in lines]


def log_results(rows: Sequence[ExportResult]) -> None:
    """Log the table."""
    for line in format_results(rows):
        LOG.info(line)
