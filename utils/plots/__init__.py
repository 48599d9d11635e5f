"""Pictures of data, results and curves. matplotlib is imported only when a figure is made."""

import os
from typing import Any

from utils.compat import find, served
from utils.plots.annotate import color_for
from utils.plots.batches import plot_batch
from utils.plots.compat import Annotator, colors, plot_one_box, save_one_box
from utils.plots.curves import plot_confusion, plot_metric_curve, plot_pr_curve
from utils.plots.evolve import plot_evolve
from utils.plots.labels import plot_label_correlogram, plot_labels
from utils.plots.results import plot_results
from utils.plots.routing import plot_routing

__all__ = [
    "Annotator",
    "color_for",
    "colors",
    "plot_batch",
    "plot_confusion",
    "plot_evolve",
    "plot_label_correlogram",
    "plot_labels",
    "plot_metric_curve",
    "plot_one_box",
    "plot_pr_curve",
    "plot_results",
    "plot_routing",
    "save_one_box",
]

__all__ += served("utils.plots")  # for scripts that import all


def __getattr__(name: str) -> Any:
    if name == "RANK":
        return int(os.environ.get("RANK", "-1"))  # of this process among those that torchrun started
    return find("utils.plots", name)
