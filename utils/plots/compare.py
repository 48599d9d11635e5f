"""Chart of several models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.plots.figure import MAIN_COLOR, font_of, new_figure, save_figure, tidy

_REFERENCE_COLOR = "#8c8c8c"
_LONGEST_NAME = 32


@dataclass(frozen=True)
class Panel:
    """One quantity of all models: values, their texts, and optional ranges (low, high)."""

    title: str
    values: Sequence[float]
    texts: Sequence[str]
    spreads: Sequence[tuple[float, float]] = ()


def plot_comparison(names: Sequence[str], panels: Sequence[Panel], file: Path) -> None:
    """Draw a row of panels with a bar per model; the first model, in grey, is the reference."""
    from matplotlib.ticker import EngFormatter  # slow to import; only needed here

    shown = [name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}" for name in names]
    figure = new_figure(2.4 * len(panels) + 0.09 * max(map(len, shown)), 1.0 + 0.36 * len(names))
    rows = range(len(names))
    colors = [_REFERENCE_COLOR, *[MAIN_COLOR] * (len(names) - 1)]
    axes_row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(axes_row, panels):
        axes.barh(rows, panel.values, color=colors, height=0.7)
        ends = [max(value, high) for value, (_, high) in zip(panel.values, panel.spreads or [(0, 0)] * len(names))]
        for row, end, text in zip(rows, ends, panel.texts):
            axes.annotate(text, (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
        if panel.spreads:
            lows, highs = zip(*panel.spreads)
            axes.hlines(rows, lows, highs, color="black", linewidth=1.2)
        axes.set_xlim(0, 1.5 * max([*ends, 1e-9]))
        axes.set_yticks(rows, [])
        axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
        tidy(axes, panel.title)
        axes.grid(axis="y", visible=False)
        axes.locator_params(axis="x", nbins=3)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20M
    axes_row[0].set_yticks(rows, shown, fontproperties=font_of(shown, 9))
    save_figure(figure, file)
