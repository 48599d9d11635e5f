"""Which kernels the dynamic layers use: over the epochs of a run, per layer, per class."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.routing import RoutingStats
from utils.core.errors import InputError
from utils.core.files import open_regular
from utils.plots.figure import MAIN_COLOR, font_of, new_figure, save_figure, tidy
from utils.plots.names import figure_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 8  # with more layers than this, a heat map replaces the curves
_NUMBERED_CLASSES = 40
_CLASS_LAYERS = 4


@dataclass(frozen=True)
class _Course:
    """A layer over the epochs."""

    epochs: np.ndarray  # [n]
    entropy: np.ndarray  # [n]
    mean: np.ndarray  # [n, K]

    @property
    def kernels(self) -> int:
        return self.mean.shape[1]


def _color(kernel: int) -> Any:
    """Muted, because whole areas are filled with it."""
    from matplotlib import colormaps

    return colormaps["tab10"](kernel % 10)


def read_routing(file: Path) -> dict[str, _Course]:
    """Read the routing file of a training run; layers in the order of the file.

    Raises:
        FileNotFoundError: no such file.
        InputError: no rows, a column missing, or a cell that is not a number; the message names file and line.
    """
    with open_regular(file) as content, io.TextIOWrapper(content, "utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise InputError(f"{file}: no epochs in it yet")
    by_layer: dict[str, list[tuple[int, float, list[float]]]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            mean = [float(row[f"mean_{k}"]) for k in range(int(row["K"]))]
            by_layer.setdefault(row["layer"], []).append((int(row["epoch"]), float(row["entropy"]), mean))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}:{line}: not a row of routing statistics ({error}); remove the line") from None
    return {
        layer: _Course(*(np.array(part) for part in zip(*sorted(rows_of_layer))))
        for layer, rows_of_layer in by_layer.items()
    }


def plot_routing(csv_path: str | Path) -> Path:
    """Draw the routing file of a run over its epochs; returns the image, ``routing.png`` beside the file.

    Up to eight layers: the mean weight of each kernel as a stacked area, and the entropy below its maximum ln K.
    More: a heat map of entropy / ln K, layers by epochs.

    Raises:
        FileNotFoundError, InputError: as ``read_routing``.
    """
    csv_path = Path(csv_path)
    courses = read_routing(csv_path)
    figure = _entropy_map(courses) if len(courses) > _PANELS else _curves(courses)
    target = csv_path.with_name("routing.png")
    save_figure(figure, target, dpi=130)
    return target


def _curves(courses: dict[str, _Course]) -> Figure:
    figure = new_figure(11, 2.5 * len(courses) + 0.8)
    panels = figure.subplots(len(courses), 2, squeeze=False)
    for (left, right), (name, course) in zip(panels, courses.items()):
        epochs, mean = course.epochs, course.mean
        if len(epochs) == 1:  # an area needs a width
            epochs, mean = np.array([epochs[0] - 0.5, epochs[0] + 0.5]), np.repeat(mean, 2, axis=0)
        labels = [f"kernel {k}" for k in range(course.kernels)]
        left.stackplot(epochs, mean.T, labels=labels, colors=[_color(k) for k in range(course.kernels)])
        tidy(left, f"layer {name}: mean weight of the kernels", y="weight, stacked", grid=False)
        left.set(xlim=(epochs[0], epochs[-1]), ylim=(0, 1))
        legend = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "frameon": False, "borderaxespad": 0}
        left.legend(**legend, fontsize=8, reverse=True, ncols=math.ceil(course.kernels / 10))
        most = math.log(course.kernels)
        right.axhline(most, color="#707070", linestyle="--", linewidth=1.2, label=f"ln {course.kernels} = {most:.2f}")
        style = {"color": MAIN_COLOR, "linewidth": 1.8, "marker": "o" if len(course.epochs) <= 30 else None}
        right.plot(course.epochs, course.entropy, **style, markersize=3, label="entropy")
        tidy(right, f"layer {name}: entropy, mean over the images", y="nats")
        right.set_ylim(0, max(most * 1.12, 0.1))
        right.legend(loc="lower left", frameon=False, fontsize=8)
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
            if len(course.epochs) == 1:
                axes.set_xticks(course.epochs)
    for axes in panels[-1]:
        axes.set_xlabel("epoch", fontsize=10)
    return figure


def _entropy_map(courses: dict[str, _Course]) -> Figure:
    epochs = np.unique(np.concatenate([course.epochs for course in courses.values()]))
    shown = np.full((len(courses), len(epochs)), np.nan)
    for row, course in zip(shown, courses.values()):
        row[np.searchsorted(epochs, course.epochs)] = course.entropy / max(math.log(course.kernels), 1e-9)
    figure = new_figure(11, min(0.17 * len(courses) + 1.6, 60.0))
    axes = figure.subplots()
    image = axes.imshow(shown, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, label="entropy / ln K: 1 all kernels evenly, 0 one kernel an image")
    bar.outline.set_visible(False)
    tidy(axes, "Entropy of the routing, mean over the images", x="epoch", y="layer", grid=False)
    axes.set_yticks(range(len(courses)), list(courses), fontsize=7)
    step = max(1, math.ceil(len(epochs) / 20))
    axes.set_xticks(range(0, len(epochs), step), [str(epoch) for epoch in epochs[::step]])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def plot_shares(stats: Sequence[RoutingStats], file: Path, dominant: bool = False) -> None:
    """Draw a bar per layer, divided among its kernels by mean weight or by the images in which each weighs most.

    Args:
        stats: the layers, at least one.
        file: image to write.
        dominant: divide by ``dominant`` instead of ``mean``.
    """
    figure = new_figure(10, max(3.2, 0.26 * len(stats) + 1.6))
    axes = figure.subplots()
    most = max(layer.kernels for layer in stats)
    left = np.zeros(len(stats))
    for k in range(most):
        parts = [layer.dominant if dominant else layer.mean for layer in stats]
        widths = np.array([part[k] if k < len(part) else 0.0 for part in parts])
        axes.barh(range(len(stats)), widths, left=left, color=_color(k), height=0.8, label=f"kernel {k}")
        for row, width in enumerate(widths):
            if width >= 0.06:
                place = left[row] + width / 2
                axes.text(place, row, f"{width:.2f}", ha="center", va="center", fontsize=7, color="white")
        left += widths
    title = "Share of the images in which a kernel weighs most" if dominant else "Mean weight of the kernels"
    tidy(axes, title, x="share of the images" if dominant else "weight", y="layer", grid=False)
    axes.set_yticks(range(len(stats)), [layer.name for layer in stats], fontsize=9 if len(stats) <= 30 else 7)
    axes.set(xlim=(0, 1), ylim=(len(stats) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, borderaxespad=0, ncols=math.ceil(most / 16))
    save_figure(figure, file)


def plot_class_routing(stats: Sequence[RoutingStats], names: Sequence[str], file: Path) -> bool:
    """Draw class by kernel, for the layers whose mixture differs most between classes.

    A cell is the mean weight over the images that contain the class, less the layer's mean weight.

    Args:
        stats: the layers.
        names: [nc] class names; classes without images are skipped.
        file: image to write.

    Returns:
        False, and no image, when no image contains a class.
    """
    chosen = sorted(stats, key=lambda layer: -layer.class_contrast)[:_CLASS_LAYERS]
    seen = np.flatnonzero(np.isfinite(np.stack([layer.per_class.sum(axis=1) for layer in chosen])).any(axis=0))
    if not len(seen):
        return False
    drawn = figure_names(names)
    shown = [drawn[int(c)] for c in seen]
    differences = [layer.per_class[seen] - layer.mean for layer in chosen]  # [classes, K] each
    limit = max(0.01, *(float(np.nanmax(np.abs(part))) for part in differences))
    widths = [max(4, layer.kernels) for layer in chosen]
    longest = max(len(name) for name in shown)
    figure = new_figure(
        max(7.0, 0.55 * sum(widths) + 0.09 * longest + 2.5), min(max(3.6, 0.24 * len(shown) + 1.6), 60.0)
    )
    panels = figure.subplots(1, len(chosen), squeeze=False, width_ratios=widths)[0]
    for axes, layer, part in zip(panels, chosen, differences):
        image = axes.imshow(part, aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-limit, vmax=limit)
        tidy(axes, f"layer {layer.name}", x="kernel", grid=False)
        axes.set_xticks(range(layer.kernels))
        axes.set_yticks(range(len(shown)), shown if axes is panels[0] else [""] * len(shown))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(shown) <= _NUMBERED_CLASSES and layer.kernels <= 8:
            _write_differences(axes, part, limit)
    for text in panels[0].get_yticklabels():
        text.set_fontproperties(font_of(shown, 9 if len(shown) <= _NUMBERED_CLASSES else 7))
    bar = figure.colorbar(image, ax=panels, label="mean weight with the class, less the mean")
    bar.outline.set_visible(False)
    save_figure(figure, file)
    return True


def _write_differences(axes: Axes, part: np.ndarray, limit: float) -> None:
    for (row, column), value in np.ndenumerate(part):
        color = "white" if abs(value) > 0.6 * limit else "black"
        axes.text(column, row, f"{value:+.3f}", ha="center", va="center", fontsize=6.5, color=color)
