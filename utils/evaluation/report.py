"""Telling a person what an evaluation found: the table and the plots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from utils.evaluation.evaluator import EvalResult
from utils.plots.curves import plot_confusion, plot_metric_curve, plot_pr_curve

LOG = logging.getLogger(__name__)
HEADER = f"{'Class':>20}{'Images':>10}{'Labels':>10}{'P':>10}{'R':>10}{'mAP@.5':>10}{'mAP@.5:.95':>12}"


def log_table(result: EvalResult, names: Sequence[str], verbose: bool = False) -> None:
    """The mean over classes and a line for each, from 50 classes on only if ``verbose``; without labels no figures."""
    LOG.info(HEADER)
    LOG.info(_line("all", result.images, result.labels, result.precision, result.recall, result.map50, result.map))
    if result.labels == 0:
        LOG.warning("the set has no labels, so precision, recall and mAP are undefined and shown as 0")
    if not (verbose or 1 < len(names) < 50):
        return
    row_of = {int(c): i for i, c in enumerate(result.ap.classes)}
    for c, name in enumerate(names):
        images, labels = int(result.images_per_class[c]), int(result.labels_per_class[c])
        if c not in row_of:
            LOG.info("%s%10d%10d%s", f"{name:>20.20}", images, labels, f"{'-':>10}" * 3 + f"{'-':>12}")
            continue
        i = row_of[c]
        figures = result.ap.p[i], result.ap.r[i], result.ap.ap[i, 0], result.ap.ap[i].mean()
        LOG.info(_line(name, images, labels, *(float(f) for f in figures)))


def _line(name: str, images: int, labels: int, p: float, r: float, map50: float, map_: float) -> str:
    return f"{name:>20.20}{images:>10d}{labels:>10d}{p:>10.3f}{r:>10.3f}{map50:>10.3f}{map_:>12.3f}"


def log_speed(result: EvalResult, shape: str) -> None:
    """Milliseconds per picture and stage."""
    stages = ", ".join(f"{ms:.1f} ms {name}" for name, ms in result.ms_per_image.items())
    LOG.info("speed: %s per picture at %s", stages or "nothing measured", shape)


def save_plots(result: EvalResult, names: Sequence[str], folder: Path) -> None:
    """PR, F1, P and R curves and the confusion matrix, under the names v6.1 uses."""
    plot_confusion(result.confusion.matrix, names, folder / "confusion_matrix.png")
    if len(result.ap.classes) == 0:
        return
    ap, shown = result.ap, [names[int(c)] for c in result.ap.classes]
    plot_pr_curve(ap.px, ap.py, ap.ap[:, 0], shown, folder / "PR_curve.png")
    for label, curve, file in (("F1", ap.f1_curve, "F1"), ("Precision", ap.p_curve, "P"), ("Recall", ap.r_curve, "R")):
        plot_metric_curve(ap.px, curve, shown, folder / f"{file}_curve.png", label)
