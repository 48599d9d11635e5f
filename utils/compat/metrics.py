"""v6.1's form of :func:`utils.metrics.ap.ap_per_class`, for scripts that unpack its answer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.metrics.ap import ApResult
from utils.metrics.ap import ap_per_class as _figures


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    plot: bool = False,
    save_dir: str | Path = ".",
    names: Sequence[str] | Mapping[int, str] = (),
    eps: float = 1e-16,
) -> tuple[np.ndarray, ...]:
    """Figures of each class that has labels: tp, fp, precision, recall, F1 [c], AP [c, thresholds], classes [c].

    ``tp`` bool [n, thresholds], ``conf`` and ``pred_cls`` [n], ``target_cls`` [m]. ``plot`` writes the four curves into
    ``save_dir``, with the ``names`` of the classes by their numbers; ``eps`` has no effect.
    """
    found = _figures(tp, conf, pred_cls, target_cls)
    if plot:
        known = names if isinstance(names, Mapping) else dict(enumerate(names))
        _draw(found, [str(known.get(int(kind), kind)) for kind in found.classes], Path(save_dir))
    return found.tp, found.fp, found.p, found.r, found.f1, found.ap, found.classes


def _draw(found: ApResult, names: Sequence[str], folder: Path) -> None:
    plots = importlib.import_module("utils.plots.curves")  # matplotlib is for those who want images
    plots.plot_pr_curve(found.px, found.py, found.ap[:, 0], names, folder / "PR_curve.png")
    for letter, title, values in (
        ("F1", "F1", found.f1_curve), ("P", "Precision", found.p_curve), ("R", "Recall", found.r_curve)
    ):  # fmt: skip
        plots.plot_metric_curve(found.px, values, names, folder / f"{letter}_curve.png", title)
