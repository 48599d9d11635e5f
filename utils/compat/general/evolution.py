"""The record of v6.1's own loop of --evolve, for scripts that have such a loop."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from utils.compat.general.logger import LOGGER
from utils.core.errors import InputError
from utils.core.files import open_regular, write_atomic
from utils.core.output import write_table
from utils.metrics import fitness
from utils.plots.evolve import EVOLVE_METRICS, plot_evolve
from utils.plots.results import read_results

_WIDTH = 20  # characters of a column on the console


def print_mutation(
    results: Sequence[float], hyp: Mapping[str, Any], save_dir: str | Path, bucket: str | None = ""
) -> None:
    """Add a trial to ``evolve.csv`` of a folder, write the best one to ``hyp_evolve.yaml`` and draw ``evolve.png``.

    Args:
        results: precision, recall, mAP@.5, mAP@.5:.95 and the three validation losses.
        hyp: the hyper-parameters of the trial, the same keys in every call.
        bucket: must be empty, for nothing is sent to a cloud.

    Raises:
        InputError: a bucket, or a folder whose table has other columns.
    """
    if bucket:
        raise InputError(f"bucket {bucket}: nothing is exchanged with a cloud; copy the folder {save_dir} yourself")
    folder = Path(save_dir)
    file = folder / "evolve.csv"
    names = [*EVOLVE_METRICS, *hyp]
    values = [*(float(value) for value in results[: len(EVOLVE_METRICS)]), *hyp.values()]
    if len(values) != len(names):
        raise InputError(f"results: {len(EVOLVE_METRICS)} numbers expected ({', '.join(EVOLVE_METRICS)})")
    rows = [names] if not file.exists() else _rows(file, names)
    write_table(file, [*rows, [_short(value) for value in values]])
    for line in (names, [_short(value) for value in values]):
        LOGGER.info("evolve: %s", "".join(word.rjust(_WIDTH) for word in line))

    table = read_results(file)
    scores = fitness(np.stack([table[name] for name in EVOLVE_METRICS[:4]], axis=1))
    best = int(np.nan_to_num(scores, nan=-1.0).argmax())
    trial = {name: float(table[name][best]) for name in hyp}
    head = f"# The best of {len(scores)} trials: number {best}, fitness {scores[best]:.5g}\n"
    write_atomic(folder / "hyp_evolve.yaml", (head + yaml.safe_dump(trial, sort_keys=False)).encode())
    plot_evolve(file)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, (int, float)) else str(value)


def _rows(file: Path, names: list[str]) -> list[list[str]]:
    """What the table holds so far, its cells without blanks."""
    with open_regular(file) as content, io.TextIOWrapper(content, "utf-8", newline="") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(row)]
    if rows and [name for name in rows[0] if name] != names:
        raise InputError(f"{file}: its columns are not those of this trial; give another folder, or the same hyp keys")
    return rows or [names]
