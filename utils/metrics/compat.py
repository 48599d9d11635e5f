"""v6.1's form of :func:`utils.metrics.ap.ap_per_class`, for scripts that unpack its answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.metrics.ap import ap_per_class as _figures

LOG = logging.getLogger(__name__)


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

    ``tp`` bool [n, thresholds], ``conf`` and ``pred_cls`` [n], ``target_cls`` [m]. ``plot`` draws nothing
    (``val.py`` draws the curves); ``save_dir``, ``names`` and ``eps`` are of no effect either.
    """
    if plot:
        LOG.warning("ap_per_class(plot=True) draws nothing here; val.py does, with the functions of utils.plots")
    found = _figures(tp, conf, pred_cls, target_cls)
    return found.tp, found.fp, found.p, found.r, found.f1, found.ap, found.classes
