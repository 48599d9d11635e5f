"""Curves and the confusion matrix of a validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.plots.figure import MAIN_COLOR, class_color, font_of, new_figure, save_figure, tidy
from utils.plots.names import figure_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED_CURVES = 20  # beyond this many classes, single curves are grey and only the mean is named
_NUMBERED_CELLS = 30
_MEAN_COLOR = "#303030"  # no class has it


def plot_pr_curve(
    recall: np.ndarray, precision: np.ndarray, ap50: np.ndarray, names: Sequence[str], file: Path
) -> None:
    """Write precision over recall at IoU 0.5, one line per class and their mean.

    Args:
        recall: [M] points of the recall axis.
        precision: [nc, M] precision of each class at these points; nc may be 0.
        ap50: [nc] average precision at IoU 0.5.
        names: [nc] names of the classes in the rows of ``precision``.
        file: image to write.
    """
    legends = [f"{name}  {value:.3f}" for name, value in zip(figure_names(names), ap50)]
    mean = f"all classes  {float(np.mean(ap50)):.3f} mAP@0.5" if len(ap50) else ""
    _curves(recall, precision, legends, mean, ("Precision over recall", "recall", "precision"), file)


def plot_metric_curve(
    confidence: np.ndarray, values: np.ndarray, names: Sequence[str], file: Path, metric: str = "F1"
) -> None:
    """Write a metric (F1, precision, recall) over the confidence threshold, one line per class and their mean.

    Args:
        confidence: [M] thresholds. values: [nc, M] metric of each class; nc may be 0.
        names: [nc] names of the classes in the rows of ``values``.
        file: image to write.
        metric: name of the metric, for title and axis.
    """
    mean = ""
    if len(values):
        average = np.mean(values, axis=0)
        best = int(np.argmax(average))
        mean = f"all classes  {average[best]:.2f} at {confidence[best]:.3f}"
    _curves(confidence, values, figure_names(names), mean, (f"{metric} over confidence", "confidence", metric), file)


def _curves(
    x: np.ndarray, values: np.ndarray, legends: list[str], mean: str, titles: tuple[str, str, str], file: Path
) -> None:
    figure = new_figure(9, 6)
    axes = figure.subplots()
    named = len(values) <= _NAMED_CURVES
    for i, curve in enumerate(values):
        color = class_color(i) if named else "#b5b5b5"
        axes.plot(x, curve, color=color, linewidth=1.3 if named else 0.6, label=legends[i] if named else None)
    if len(values):
        axes.plot(x, np.mean(values, axis=0), color=_MEAN_COLOR if named else MAIN_COLOR, linewidth=3, label=mean)
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, borderaxespad=0)
        for text in legend.get_texts():
            text.set_fontproperties(font_of(legends, 9))
    else:
        axes.text(0.5, 0.5, "no class with labels", ha="center", va="center", fontsize=12, color="gray")
    tidy(axes, *titles)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    save_figure(figure, file)


def plot_confusion(
    matrix: np.ndarray, names: Sequence[str], file: Path, normalize: bool = True, thresholds: str = ""
) -> None:
    """Write the confusion matrix: rows are predicted, columns true classes, the last of each is background.

    Args:
        matrix: [nc + 1, nc + 1] counts.
        names: [nc] class names.
        file: image to write.
        normalize: colour by the fraction of each column, which is written above the count; else only counts.
        thresholds: for the title, such as "confidence > 0.25".
    """
    shown = counts = np.asarray(matrix, dtype=np.float64)
    if normalize:
        totals = shown.sum(axis=0, keepdims=True)
        shown = np.divide(shown, totals, out=np.zeros_like(shown), where=totals > 0)
    ticks = [*figure_names(names), "background"]
    side = min(16.0, 6.0 + 0.28 * len(ticks))
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1 if normalize else None)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, label="fraction of the true class" if normalize else "boxes")
    bar.outline.set_visible(False)
    tidy(
        axes,
        f"Confusion matrix ({thresholds})" if thresholds else "Confusion matrix",
        x="true",
        y="predicted",
        grid=False,
    )
    size = 9.0 if len(ticks) <= 31 else 6.5
    axes.set_xticks(range(len(ticks)), ticks, rotation=90)
    axes.set_yticks(range(len(ticks)), ticks)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_fontproperties(font_of(ticks, size))
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(ticks) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(ticks) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    if len(ticks) <= _NUMBERED_CELLS + 1:
        _write_cells(axes, shown, counts)
    save_figure(figure, file)


def _write_cells(axes: Axes, shown: np.ndarray, counts: np.ndarray) -> None:
    """Write the count, below the fraction if that is shown, into each cell that is not empty; white on dark cells."""
    normalize = shown is not counts
    dark = 0.5 * (1.0 if normalize else float(shown.max(initial=0.0)))
    size = 9 if len(shown) <= 16 else 6
    for (row, column), count in np.ndenumerate(counts):
        if count >= 0.5:
            value = shown[row, column]
            text = f"{value:.2f}\n{count:.0f}" if normalize else f"{count:.0f}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=size, color="white" if value > dark else "black"
            )
