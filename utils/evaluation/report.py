"""Report of an evaluation: the table in the log, and the plots."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from utils.evaluation.results import EvalResult
from utils.evaluation.tables import ClassRow, class_rows, mean_row
from utils.metrics.ap import ApResult
from utils.metrics.coco import CocoMetrics
from utils.plots.curves import plot_confusion, plot_metric_curve, plot_pr_curve
from utils.plots.names import columns, shorten

LOG = logging.getLogger(__name__)
PLOT_FILES = (
    "confusion_matrix.png",
    "worst.jpg",
    *(f"{name}_curve.png" for name in ("PR", "F1", "P", "R")),
    *(f"val_batch{number}_{kind}.jpg" for number in range(3) for kind in ("labels", "pred")),
)
_WIDTHS = {"P": 10, "R": 10, "mAP@.5": 10, "mAP@.5:.95": 12, "best F1": 10, "at": 8}
HEADER = f"{'Class':>20}{'Images':>10}{'Labels':>10}" + "".join(f"{name:>{width}}" for name, width in _WIDTHS.items())


def log_metrics(result: EvalResult, names: Sequence[str], verbose: bool = False) -> None:
    """Log the means over the classes, and a line for each class: with 50 classes and more only if ``verbose``.

    The last columns are the best F1 and the confidence threshold where it is reached.
    """
    LOG.info(HEADER)
    LOG.info(_line(mean_row(result)))
    if result.labels == 0:
        LOG.warning("the set has no labels, so precision, recall and mAP are undefined")
    elif verbose or 1 < len(names) < 50:
        for row in class_rows(result, names):
            LOG.info(_line(row))


def _line(row: ClassRow) -> str:
    values = (row.precision, row.recall, row.ap50, row.ap50_95, row.best_f1, row.best_f1_conf)
    cells = [f"{'-' if v is None else f'{v:.3f}':>{width}}" for v, width in zip(values, _WIDTHS.values())]
    ending = "  absent" if row.absent and row.number is not None else ""
    name = shorten(row.name, 20)
    return f"{' ' * (20 - columns(name))}{name}{row.images:>10d}{row.labels:>10d}{''.join(cells)}{ending}"


def log_coco_metrics(metrics: CocoMetrics) -> None:
    """Log COCO's twelve metrics, with a dash for those without labels."""
    cells = [
        f"{name} {'-' if math.isnan(value) else f'{value:.3f}'}".ljust(14) for name, value in metrics.by_name().items()
    ]
    half = len(cells) // 2
    LOG.info("COCO metrics (by %s, at most 100 detections an image):", metrics.tool)
    for line in (cells[:half], cells[half:]):
        LOG.info("  %s", "".join(line).rstrip())


def log_speed(result: EvalResult, shape: str) -> None:
    """Log the milliseconds per image of each stage."""
    stages = ", ".join(f"{ms:.1f} ms {name}" for name, ms in result.ms_per_image.items())
    LOG.info("speed: %s per image at %s", stages or "nothing measured", shape)


def save_plots(result: EvalResult, names: Sequence[str], folder: Path) -> None:
    """Write the confusion matrix and the curves, under the file names of v6.1."""
    confusion = result.confusion
    plot_confusion(confusion.matrix, names, folder / "confusion_matrix.png", thresholds=confusion.describe_thresholds())
    if len(result.ap.classes):
        save_curves(result.ap, [names[int(c)] for c in result.ap.classes], folder)


def save_curves(ap: ApResult, names: Sequence[str], folder: Path) -> None:
    """Write the PR, F1, P and R curves of the classes with labels, whose names these are."""
    plot_pr_curve(ap.px, ap.py, ap.ap[:, 0], names, folder / "PR_curve.png")
    for label, curve, file in (("F1", ap.f1_curve, "F1"), ("Precision", ap.p_curve, "P"), ("Recall", ap.r_curve, "R")):
        plot_metric_curve(ap.px, curve, names, folder / f"{file}_curve.png", label)
