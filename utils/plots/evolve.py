"""Charts of a hyper-parameter search, from its evolve.csv (of this repository or of v6.1)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from utils.core.errors import InputError
from utils.plots.figure import MAIN_COLOR, new_figure, save_figure, tidy
from utils.plots.results import read_results

# The first columns of evolve.csv; hyper-parameters follow.
EVOLVE_METRICS = (
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
)
_OURS = ("fitness", "trial")  # the last columns, which v6.1 does not have
_COLUMNS = 6
BEST_COLOR = "#d1495b"


def plot_evolve(evolve_csv: str | Path = "path/to/evolve.csv") -> Path:
    """Draw fitness over every hyper-parameter; returns the image, ``evolve.png`` beside the file.

    Later trials are darker; the best one is marked, with its value in the title. A hyper-parameter that never
    changes has no panel. Failed trials are not drawn.

    Raises:
        FileNotFoundError, InputError: as :func:`utils.plots.results.read_results`.
    """
    file = Path(evolve_csv)
    table, fitness, failed = _read(file)
    names = [name for name in table if name not in EVOLVE_METRICS and name not in _OURS and np.ptp(table[name]) > 0]
    lines = max(1, math.ceil(len(names) / _COLUMNS))
    figure = new_figure(2.6 * _COLUMNS, 2.3 * lines + 0.4)
    panels = figure.subplots(lines, _COLUMNS, squeeze=False, sharey=True).ravel()
    age = np.linspace(0.25, 1.0, len(fitness))[~failed]
    best = int(np.argmax(np.where(failed, -1.0, fitness)))
    for axes, name in zip(panels, names):
        values = table[name]
        axes.scatter(values[~failed], fitness[~failed], c=age, cmap="Blues", vmin=0, vmax=1, s=16, linewidths=0)
        axes.plot(values[best], fitness[best], "+", color=BEST_COLOR, markersize=12, markeredgewidth=2)
        tidy(axes, f"{name} = {values[best]:.3g}")
        axes.locator_params(axis="x", nbins=4)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    if not names:
        figure.text(0.5, 0.5, "one trial so far: nothing has been changed yet", ha="center", va="center", color="gray")
    figure.supylabel("fitness", fontsize=10)
    target = file.with_name("evolve.png")
    save_figure(figure, target, dpi=110)
    return target


def plot_evolve_course(evolve_csv: str | Path) -> Path:
    """Draw fitness over the trials and the best so far; returns the image, ``evolve_fitness.png`` beside the file.

    Raises:
        FileNotFoundError, InputError: as :func:`utils.plots.results.read_results`.
    """
    file = Path(evolve_csv)
    _, fitness, failed = _read(file)
    trials = np.arange(1, len(fitness) + 1)
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    axes.plot(trials[~failed], fitness[~failed], "o", color=MAIN_COLOR, markersize=5, alpha=0.6, label="a trial")
    if failed.any():
        low = float(fitness[~failed].min()) if (~failed).any() else 0.0
        axes.plot(trials[failed], np.full(failed.sum(), low), "x", color="gray", label="could not be trained")
    best = np.maximum.accumulate(np.where(failed, 0.0, fitness))
    axes.step(trials, best, where="post", color=BEST_COLOR, linewidth=2, label=f"best so far: {best[-1]:.4g}")
    tidy(axes, "Fitness over the trials", x="trial", y="fitness")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    target = file.with_name("evolve_fitness.png")
    save_figure(figure, target, dpi=130)
    return target


def _read(file: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the columns, the fitness of each row [n], and whether its trial failed [n]."""
    table = read_results(file)
    missing = [name for name in EVOLVE_METRICS if name not in table]
    if missing:
        raise InputError(f"{file}: no column '{missing[0]}'; expected an evolve.csv")
    fitness = 0.1 * table["metrics/mAP_0.5"] + 0.9 * table["metrics/mAP_0.5:0.95"]
    return table, fitness, np.isnan(table["val/box_loss"]) & (fitness == 0)
