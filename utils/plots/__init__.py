"""Images of data, results and curves. matplotlib is imported only when a figure is made."""

from typing import Any

from utils.core.v61 import import_served, served_names
from utils.plots.annotate import color_for
from utils.plots.batches import plot_batch
from utils.plots.curves import plot_confusion, plot_metric_curve, plot_pr_curve
from utils.plots.evolve import plot_evolve
from utils.plots.labels import plot_label_correlogram, plot_labels
from utils.plots.results import plot_results
from utils.plots.routing import plot_routing

__all__ = [
    "color_for",
    "plot_batch",
    "plot_confusion",
    "plot_evolve",
    "plot_label_correlogram",
    "plot_labels",
    "plot_metric_curve",
    "plot_pr_curve",
    "plot_results",
    "plot_routing",
]

__all__ += served_names("utils.plots")  # for scripts that import all


def __getattr__(name: str) -> Any:
    return import_served("utils.plots", name)
