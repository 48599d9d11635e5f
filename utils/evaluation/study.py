"""``--task study`` and ``--task speed``: several models at several image sizes, their table and chart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.names import file_name
from utils.core.output import OutputFolder, write_table
from utils.evaluation.results import EvalResult
from utils.plots.study import StudyLine, plot_study

LOG = logging.getLogger(__name__)
STAGES = ("pre-process", "inference", "NMS")  # the three that v6.1 reports


@dataclass(frozen=True)
class StudyRow:
    """One model at one size."""

    model: str
    dynamic: bool
    parameters: int
    imgsz: int
    result: EvalResult

    @property
    def ms(self) -> tuple[float, ...]:
        """Milliseconds per image of each of ``STAGES``."""
        return tuple(self.result.ms_per_image.get(stage, 0.0) for stage in STAGES)

    def v61(self) -> list[float]:
        """Return a row of v6.1's study file: P, R, mAP50, mAP, three losses, three times."""
        result = self.result
        return [result.precision, result.recall, result.map50, result.map, *result.losses, *self.ms]


def short_names(files: Sequence[Path]) -> list[str]:
    """Return the stem of each file, with as many folders as are needed for different names."""
    parts = [[*file.absolute().parts[1:-1], file.stem] for file in files]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


class StudyLog:
    """Logs a table row by row.

    Args:
        models: names of all models, for the width of the first column.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._width = max([5, *map(len, models)])
        self._begun = False

    def add(self, row: StudyRow) -> None:
        """Log a row, and before the first one the header."""
        if not self._begun:
            head = "".join(f"{stage:>13}" for stage in STAGES)
            columns = f"{'size':>7}{'mAP@.5':>9}{'mAP@.5:.95':>12}{head}{'images/s':>12}"
            LOG.info(f"{'model':<{self._width}}{columns}   (ms per image)")
            self._begun = True
        times = "".join(f"{ms:>13.2f}" for ms in row.ms)
        rate = 1000 / max(sum(row.ms), 1e-9)
        metrics = f"{row.imgsz:>7}{row.result.map50:>9.3f}{row.result.map:>12.3f}"
        LOG.info(f"{row.model:<{self._width}}{metrics}{times}{rate:>12.1f}")


def write_rows(rows: Sequence[StudyRow], file: Path) -> None:
    """Write the table as csv, with unrounded values."""
    header = ["model", "dynamic", "parameters", "imgsz", "precision", "recall", "mAP_0.5", "mAP_0.5:0.95"]
    lines: list[list[Any]] = [[*header, *(f"{stage}_ms" for stage in STAGES)]]
    for row in rows:
        values = [f"{value:.6g}" for value in (*row.v61()[:4], *row.ms)]
        lines.append([row.model, int(row.dynamic), row.parameters, row.imgsz, *values])
    write_table(file, lines)


def save_study(rows: Sequence[StudyRow], data: str, folder: Path) -> None:
    """Write ``study.csv``, ``study.png``, and ``study_<data>_<model>.txt`` per model in the format of v6.1."""
    write_rows(rows, folder / "study.csv")
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        model_rows = [row for row in rows if row.model == model]
        table = np.array([row.v61() for row in model_rows])
        name = file_name(f"study_{data}_{model.replace('/', '_')}", 200)
        np.savetxt(OutputFolder(folder).path(f"{name}.txt"), table, fmt="%10.4g")
        sizes, values = [row.imgsz for row in model_rows], [row.result.map for row in model_rows]
        ms = [row.ms[1] + row.ms[2] for row in model_rows]
        lines.append(StudyLine(model, model_rows[0].dynamic, sizes, values, ms))
    plot_study(lines, folder / "study.png")
