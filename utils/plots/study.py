"""Scores and speed of models over image sizes, all in one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.plots.figure import font_of, new_figure, save_figure, tidy

_COLORS = ("#1f5fbf", "#c43c39", "#2e8b57", "#b8860b", "#7b3fa0", "#008b8b", "#5a5a5a")


@dataclass(frozen=True)
class StudyLine:
    """One model: ``sizes`` in pixels with the mAP@.5:.95 and the milliseconds per image reached at each."""

    name: str
    dynamic: bool
    sizes: Sequence[int]
    map: Sequence[float]
    ms: Sequence[float]


def plot_study(lines: Sequence[StudyLine], file: Path) -> None:
    """Write two panels, mAP over time and over size; dynamic models have full lines and dots, static ones dashes."""
    from matplotlib.ticker import LogFormatter  # slow to import; only needed here

    figure = new_figure(11, 4.6)
    by_time, by_size = figure.subplots(1, 2)
    for index, line in enumerate(lines):
        color = _COLORS[index % len(_COLORS)]
        label = f"{line.name} ({'dynamic' if line.dynamic else 'static'})"
        style = {"color": color, "linewidth": 1.6, "linestyle": "-" if line.dynamic else "--"}
        style |= {"marker": "o" if line.dynamic else "s", "markersize": 5, "label": label}
        by_time.plot(line.ms, line.map, **style)
        by_size.plot(line.sizes, line.map, **style)
        best = max(range(len(line.map)), key=lambda i: line.map[i])
        for i in {0, best, len(line.map) - 1}:  # all would cover one another
            point = line.ms[i], line.map[i]
            by_time.annotate(f"{line.sizes[i]} px", point, (5, -9), textcoords="offset points", fontsize=7, color=color)
    tidy(by_time, "mAP over time", "ms per image (inference and NMS)", "mAP@.5:.95")
    tidy(by_size, "mAP over size", "longer side in pixels", "mAP@.5:.95")
    by_time.set_xscale("log")
    for axis in (by_time.xaxis.set_major_formatter, by_time.xaxis.set_minor_formatter):
        axis(LogFormatter(minor_thresholds=(2, 0.5)))
    for axes in (by_time, by_size):
        axes.set_ylim(bottom=0)
    every = sorted({size for line in lines for size in line.sizes})
    by_size.set_xticks(every, every, rotation=45 if len(every) > 6 else 0)
    names = [line.name for line in lines]
    for text in by_size.legend(frameon=False, loc="lower right").get_texts():
        text.set_fontproperties(font_of(names, 9))
    save_figure(figure, file)
