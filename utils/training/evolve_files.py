"""Results of ``--evolve`` in its run folder: evolve.csv, hyp_evolve.yaml and two plots."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from utils.config.hyp import Hyp
from utils.core.files import write_atomic
from utils.core.output import csv_text
from utils.metrics import fitness
from utils.plots.evolve import EVOLVE_METRICS, plot_evolve, plot_evolve_course
from utils.plots.results import read_results
from utils.training.evolve_space import SearchSpace

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LOG = logging.getLogger(__name__)

CSV_FILE, HYP_FILE = "evolve.csv", "hyp_evolve.yaml"


def fitness_of(row: Mapping[str, float]) -> float:
    """Return v6.1's fitness of metrics by their column names; not-a-number if one is missing."""
    return float(fitness(np.array([[row.get(name, math.nan) for name in EVOLVE_METRICS[:4]]]))[0])


def write_results(folder: Path, space: SearchSpace, trials: Sequence[FrozenTrial]) -> None:
    """Rewrite the table, the best hyper-parameters and the plots from the trials that count.

    A full disk causes a warning only: the study contains everything.
    """
    if not trials:
        return
    try:
        write_atomic(folder / CSV_FILE, _table(space, trials).encode())
        best = best_of(trials)
        if best is not None:
            write_atomic(folder / HYP_FILE, _best_yaml(space, best, len(trials)).encode())
            plot_evolve(folder / CSV_FILE)
            plot_evolve_course(folder / CSV_FILE)
    except OSError as error:
        LOG.warning("%s: results not written, the search continues: %s", folder, error)


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the trial with the best fitness, the first of equals; None when no trial has a fitness."""
    scored = [trial for trial in trials if trial.value is not None]
    return max(scored, key=lambda trial: trial.value or 0.0) if scored else None


def read_trials(folder: Path, space: SearchSpace) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Return (values, metrics) of every row of the folder's evolve.csv, also one of v6.1; [] without that file.

    A hyper-parameter without a column has its starting value.

    Raises:
        InputError: a line that cannot be read, named by its number.
    """
    file = folder / CSV_FILE
    if not file.exists():
        return []
    table = read_results(file)
    trials = []
    for i in range(len(next(iter(table.values())))):
        row = {name: float(table[name][i]) for name in EVOLVE_METRICS if name in table}
        values = {name: float(table[name][i]) for name in space.searched if name in table}
        fitness_value = fitness_of(row)
        if math.isfinite(fitness_value) and all(math.isfinite(value) for value in values.values()):
            trials.append((values, row | {"fitness": fitness_value}))
    return trials


def _table(space: SearchSpace, trials: Sequence[FrozenTrial]) -> str:
    """Return the table: columns of v6.1, fitness and number of the trial; a failed one has no losses and fitness 0."""
    lines: list[list[Any]] = [[*EVOLVE_METRICS, *space.genes, "fitness", "trial"]]
    for trial in trials:
        row: Mapping[str, Any] = trial.user_attrs.get("row", {})
        hyp = space.hyp(trial.params).to_dict()
        metrics = [row.get(name, 0.0 if name.startswith("metrics/") else math.nan) for name in EVOLVE_METRICS]
        values = [*metrics, *(float(hyp[name] or 0.0) for name in space.genes), trial.value or 0.0]
        lines.append([*(f"{value:.7g}" for value in values), trial.number])
    return csv_text(lines)


def _best_yaml(space: SearchSpace, best: FrozenTrial, count: int) -> str:
    """Return the best hyper-parameters as a file for ``--hyp``, with their origin as a comment."""
    row = best.user_attrs["row"]
    metrics = ", ".join(f"{name.removeprefix('metrics/')} {row[name]:.4g}" for name in EVOLVE_METRICS[:4])
    head = (
        f"# The best of {count} trials of --evolve: trial {best.number}, fitness {best.value:.5g}\n"
        f"# {metrics}\n"
        f"# Train with it: python train.py --hyp {HYP_FILE}, with the other options of opt.yaml beside it\n"
    )
    return head + hyp_yaml(space, space.hyp(best.params))


def hyp_yaml(space: SearchSpace, hyp: Hyp) -> str:
    """Return hyper-parameters as yaml: those of the table first, then those that differ from their defaults."""
    values, defaults = hyp.to_dict(), Hyp().to_dict()
    names = [*space.genes, *(name for name in values if name not in space.genes and values[name] != defaults[name])]
    return yaml.safe_dump({name: values[name] for name in names}, sort_keys=False)
