"""matplotlib figures without pyplot: no global state, no window; matplotlib is imported with the first figure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.files import write_atomic
from utils.plots.annotate import color_for
from utils.plots.fonts import font_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN_COLOR = "#1f5fbf"
MARK_COLOR = "#c2410c"  # beside the main one also for colour-blind readers
GRID_COLOR = "#d9d9d9"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches, with Agg and constrained layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, file: Path, dpi: int = 150) -> None:
    """Write a figure; the suffix of ``file`` gives the format."""
    with warnings.catch_warnings():
        # can_write() has logged a text without a font once; matplotlib would warn for each letter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        content = io.BytesIO()
        figure.savefig(content, format=file.suffix[1:], dpi=dpi, facecolor="white")
    write_atomic(file, content.getvalue(), durable=False)


def tidy(axes: Axes, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Apply the common style: no frame above and at the right, a light grid behind the data, small labels."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(color=GRID_COLOR, linewidth=0.6)
        axes.set_axisbelow(True)


def class_color(index: int) -> tuple[float, float, float]:
    """Return the palette colour of a class for matplotlib: r, g, b in 0..1."""
    blue, green, red = color_for(index)
    return red / 255.0, green / 255.0, blue / 255.0


def font_of(names: Sequence[str], size: float) -> Any:
    """Return properties of a font with the characters of all ``names``, at ``size`` points."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=font_file("".join(names)), size=size)
