"""Pictures of data, results and curves. matplotlib is imported only when a figure is made."""

from utils.plots.annotate import Annotator, color_for
from utils.plots.batches import plot_batch
from utils.plots.curves import plot_confusion, plot_metric_curve, plot_pr_curve
from utils.plots.labels import plot_labels
from utils.plots.results import plot_results

__all__ = [
    "Annotator",
    "color_for",
    "plot_batch",
    "plot_confusion",
    "plot_labels",
    "plot_metric_curve",
    "plot_pr_curve",
    "plot_results",
]
