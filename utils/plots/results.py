"""Chart of a training run from its results file."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np

from utils.core.errors import InputError
from utils.core.files import open_regular
from utils.metrics.ap import fitness
from utils.plots.figure import MAIN_COLOR, MARK_COLOR, new_figure, save_figure, tidy

_COLUMNS = 5
# Column -> title. Training and validation losses are above each other; other columns follow in the order of the file.
_TITLES = {
    "train/box_loss": "box loss, training",
    "train/obj_loss": "objectness loss, training",
    "train/cls_loss": "class loss, training",
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "val/box_loss": "box loss, validation",
    "val/obj_loss": "objectness loss, validation",
    "val/cls_loss": "class loss, validation",
    "metrics/mAP_0.5": "mAP@.5",
    "metrics/mAP_0.5:0.95": "mAP@.5:.95",
    "x/lr0": "learning rate, norms",
    "x/lr1": "learning rate, weights",
    "x/lr2": "learning rate, biases",
}
_METRICS = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")


def read_results(file: Path) -> dict[str, np.ndarray]:
    """Read a results file of this repository or of v6.1 (cells padded with spaces), one array per column; empty: nan.

    Raises:
        FileNotFoundError: no such file.
        InputError: a cell that is not a number, or a file without rows; the message names file, line and column.
    """
    with open_regular(file) as content, io.TextIOWrapper(content, "utf-8", newline="") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row]
    if len(rows) < 2:
        raise InputError(f"{file}: no epochs in it yet")
    header, *body = rows
    table: dict[str, list[float]] = {name: [] for name in header}
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise InputError(f"{file}:{line}: {len(row)} cells, the header has {len(header)}; remove the line")
        for name, cell in zip(header, row):
            try:
                table[name].append(float(cell) if cell else math.nan)
            except ValueError:
                raise InputError(f"{file}:{line}: column '{name}': '{cell}' is not a number") from None
    return {name: np.array(values) for name, values in table.items()}


def plot_results(csv_path: str | Path) -> Path:
    """Draw every column of a results file over the epochs; returns the image, ``results.png`` beside the file.

    Raises:
        FileNotFoundError, InputError: as ``read_results``.
    """
    csv_path = Path(csv_path)
    table = read_results(csv_path)
    epochs = table.pop("epoch", np.arange(len(next(iter(table.values()))))) + 1  # from 1, as in the terminal
    best = _best_row(table)
    # The columns of the dynamic layers are in routing.png.
    shown = {name: values for name, values in table.items() if not name.startswith("routing/")}
    drawn = {name: values for name, values in shown.items() if np.isfinite(values).any()}
    order = [name for name in _TITLES if name in drawn] + [name for name in drawn if name not in _TITLES]
    lines = max(1, math.ceil(len(order) / _COLUMNS))
    figure = new_figure(3.1 * _COLUMNS, 2.6 * lines + 0.3)
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axes, name in zip(panels, order):
        values = drawn[name]
        noisy = len(values) >= 10 and name.startswith(("train/", "val/", "metrics/"))
        style = {"color": MAIN_COLOR, "linewidth": 1 if noisy else 1.8, "alpha": 0.45 if noisy else 1}
        axes.plot(epochs, values, marker="o" if len(values) <= 30 else None, markersize=3, **style)
        if noisy:
            axes.plot(epochs, _smooth(values), color=MAIN_COLOR, linewidth=2)
        if best is not None and name.startswith(("val/", "metrics/")) and np.isfinite(values[best]):
            axes.axvline(epochs[best], color=MARK_COLOR, linewidth=1, linestyle="--")
            axes.plot(epochs[best], values[best], marker="o", markersize=5, color=MARK_COLOR)
        tidy(axes, _TITLES.get(name, name))
        axes.ticklabel_format(axis="y", useOffset=False)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(order) :]:
        axes.set_visible(False)
    mark = "" if best is None else f"; dashed: epoch {epochs[best]:.0f}, the best one (best.pt)"
    figure.supxlabel(f"epoch{mark}", fontsize=10)
    target = csv_path.with_name("results.png")
    save_figure(figure, target, dpi=130)
    return target


def _best_row(table: dict[str, np.ndarray]) -> int | None:
    """The row of the highest fitness, of equal ones the last, as for best.pt; None without metrics."""
    if not all(name in table for name in _METRICS):
        return None
    values = np.stack([table[name] for name in _METRICS], axis=1)
    scored = np.isfinite(values).all(axis=1)
    scores = np.where(scored, fitness(np.nan_to_num(values)), -1.0)
    return len(scores) - 1 - int(scores[::-1].argmax()) if scored.any() else None


def _smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian-weighted mean over neighbouring epochs; near the ends and gaps only over those there are."""
    sigma = max(1.0, len(values) / 40)
    distance = np.arange(len(values))[:, None] - np.arange(len(values))[None]
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * np.isfinite(values)[None]  # [n, n]
    total = weights.sum(axis=1)
    smooth = weights @ np.nan_to_num(values)
    return np.divide(smooth, total, out=np.full(len(values), math.nan), where=total > 1e-9)
