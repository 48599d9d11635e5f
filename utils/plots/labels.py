"""What the boxes of a training set look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.core.names import counted
from utils.plots.figure import MAIN_COLOR, class_color, font_of, new_figure, save_figure, tidy
from utils.plots.names import figure_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN_BOXES = 1000
_BINS = 50
_FEW_CLASSES = 30  # beyond this many the histogram gets most of the width and its bars no numbers


def plot_labels(labels: np.ndarray, names: Sequence[str], file: Path) -> None:
    """Write four panels: boxes per class, box shapes on top of each other, density of centres, density of sizes.

    Args:
        labels: [N, 5] class and normalised centre box; N may be 0.
        names: class names.
        file: image to write.
    """
    labels = np.asarray(labels, dtype=np.float64).reshape(-1, 5)
    many = len(names) > _FEW_CLASSES
    figure = new_figure(16 if many else 12, 11)
    top, bottom = figure.subfigures(2, 1, squeeze=False)[:, 0]
    histogram, outlines = top.subplots(1, 2, width_ratios=[2.4 if many else 1, 1])
    centres, sizes = bottom.subplots(1, 2)
    _class_histogram(histogram, labels[:, 0].astype(int), names)
    _box_outlines(outlines, labels)
    _density(centres, labels[:, 1], labels[:, 2], "Box centres", ("x", "y"))
    centres.invert_yaxis()  # image rows count downward
    _density(sizes, labels[:, 3], labels[:, 4], "Box sizes", ("width", "height"))
    save_figure(figure, file)


def _class_histogram(axes: Axes, classes: np.ndarray, names: Sequence[str]) -> None:
    count = max(len(names), int(classes.max(initial=-1)) + 1, 1)
    heights = np.bincount(classes[classes >= 0], minlength=count)
    axes.bar(range(count), heights, width=0.8, color=[class_color(i) for i in range(count)])
    tidy(axes, f"{counted(len(classes), 'box')} in {counted(len(names), 'class')}", y="boxes")
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.7, count - 0.3)
    if count <= _FEW_CLASSES:
        for i, height in enumerate(heights):
            axes.text(i, height, str(height), ha="center", va="bottom", fontsize=8 if count <= 15 else 6)
    shown = [*figure_names(names), *map(str, range(len(names), count))]
    # Names fit beside each other at this size; beyond that every k-th class is named.
    step = -(-count // 90)
    size = 9.0 if count <= 50 else 6.8
    beside = sum(map(len, shown)) + 2 * count <= 50  # few and short: they can be read without turning the head
    axes.set_xticks(range(0, count, step), shown[::step], rotation=0 if beside else 90)
    axes.tick_params(axis="x", length=2)
    for text in axes.get_xticklabels():
        text.set_fontproperties(font_of(shown, size))


def _box_outlines(axes: Axes, labels: np.ndarray) -> None:
    """An even selection of boxes, all moved to one centre so that their shapes can be compared."""
    from matplotlib.collections import PolyCollection

    chosen = labels[np.linspace(0, len(labels) - 1, min(len(labels), _DRAWN_BOXES)).astype(int)]
    half_w, half_h = chosen[:, 3] / 2, chosen[:, 4] / 2
    corners = np.stack(
        [
            np.stack([-half_w, -half_h], -1),
            np.stack([half_w, -half_h], -1),
            np.stack([half_w, half_h], -1),
            np.stack([-half_w, half_h], -1),
        ],
        axis=1,
    )  # [n, 4, 2]
    colors = [(*class_color(int(c)), 0.5) for c in chosen[:, 0]]
    axes.add_collection(PolyCollection(list(corners), facecolors="none", edgecolors=colors, linewidths=0.7))
    tidy(axes, f"Shapes of {len(chosen)} boxes, centred", x="width", y="height")
    axes.set(xlim=(-0.52, 0.52), ylim=(-0.52, 0.52), aspect="equal")


def _density(axes: Axes, x: np.ndarray, y: np.ndarray, title: str, axis_names: tuple[str, str]) -> None:
    if len(x):
        *_, mesh = axes.hist2d(x, y, bins=_BINS, range=[[0, 1], [0, 1]], cmap="viridis", cmin=1)
        bar = axes.figure.colorbar(mesh, ax=axes, shrink=0.8, label="boxes")
        bar.outline.set_visible(False)
        bar.ax.locator_params(axis="y", integer=True)
    else:
        axes.text(0.5, 0.5, "no boxes", ha="center", va="center", fontsize=12, color="gray")
    tidy(axes, title, x=axis_names[0], y=axis_names[1])
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def plot_label_correlogram(labels: np.ndarray, file: Path) -> None:
    """Write how x, y, width and height of the boxes go together: each against each, and each alone on the diagonal.

    Args:
        labels: [N, 5] class and normalised centre box; N may be 0.
        file: image to write.
    """
    boxes = np.asarray(labels, dtype=np.float64).reshape(-1, 5)[:, 1:]
    names = ("x", "y", "width", "height")
    figure = new_figure(10, 10)
    panels = figure.subplots(4, 4, sharex="col")
    for (row, column), axes in np.ndenumerate(panels):
        if column > row:
            axes.set_visible(False)
            continue
        if column == row:
            axes.hist(boxes[:, row], bins=_BINS, range=(0, 1), color=MAIN_COLOR)
        elif len(boxes):
            axes.hist2d(boxes[:, column], boxes[:, row], bins=_BINS, range=[[0, 1], [0, 1]], cmap="viridis", cmin=1)
            axes.set_ylim(0, 1)
        tidy(axes, x=names[column] if row == 3 else "", y="boxes" if column == row else names[row])
        axes.set_xlim(0, 1)
    figure.suptitle(counted(len(boxes), "box"), fontsize=11)
    save_figure(figure, file, dpi=110)


def plot_box_sizes(boxes_px: np.ndarray, per_image: np.ndarray, imgsz: int, file: Path) -> None:
    """Write three panels: how large boxes are in training, how wide for their height, and how many an image has.

    Args:
        boxes_px: [N, 2] width and height in pixels at the size of training; N may be 0.
        per_image: [M] number of boxes of each image.
        imgsz: size of training, for the title.
        file: image to write.
    """
    figure = new_figure(15, 4.5)
    size, aspect, count = figure.subplots(1, 3)
    wh = np.asarray(boxes_px, dtype=np.float64).reshape(-1, 2).clip(1e-3)
    edges = np.geomspace(1, 2.0 ** np.ceil(np.log2(max(imgsz, 2))), 41)
    size.hist(np.sqrt(wh.prod(1)).clip(edges[0], edges[-1]), bins=edges, color=MAIN_COLOR)
    size.set_xscale("log", base=2)
    size.xaxis.set_major_formatter("{x:g}")
    for limit, name in ((32, "small"), (96, "medium")):  # the bounds of COCO, on the side of a square
        size.axvline(limit, color="gray", linewidth=1, linestyle="--")
        size.text(limit, 1.0, f"{name} ", ha="right", va="top", fontsize=8, transform=size.get_xaxis_transform())
    tidy(size, f"Side of {len(wh)} boxes at {imgsz} pixels", x="square root of the area, pixels", y="boxes")
    bounds = np.geomspace(1 / 32, 32, 41)
    aspect.hist((wh[:, 0] / wh[:, 1]).clip(bounds[0], bounds[-1]), bins=bounds, color=MAIN_COLOR)
    aspect.set_xscale("log", base=2)
    aspect.xaxis.set_major_formatter("{x:g}")
    tidy(aspect, "Aspect", x="width / height", y="boxes")
    most = int(np.max(per_image, initial=1))
    count.hist(per_image, bins=np.arange(-0.5, min(most, 60) + 1) if most <= 60 else 60, color=MAIN_COLOR)
    tidy(count, f"Boxes in each of {len(per_image)} images", x="boxes", y="images")
    save_figure(figure, file)
