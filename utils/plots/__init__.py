"""Images of data, results and curves. matplotlib is imported only when a figure is made."""

import os
from typing import Any

from utils.core.v61 import find, served
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

__all__ += served("utils.plots")  # for scripts that import all


def __getattr__(name: str) -> Any:
    if name == "RANK":
        return int(os.environ.get("RANK", "-1"))  # of this process among those that torchrun started
    return find("utils.plots", name)
