"""How good detections are: matching, average precision, confusion of classes."""

import importlib
from typing import Any

from utils.boxes import bbox_ioa, bbox_iou, box_iou, wh_iou
from utils.metrics.ap import ApResult, compute_ap, fitness
from utils.metrics.compat import ap_per_class
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.matching import match_as_v61, match_predictions

__all__ = [
    "ApResult",
    "ConfusionMatrix",
    "ap_per_class",
    "bbox_ioa",
    "bbox_iou",
    "box_iou",
    "compute_ap",
    "fitness",
    "match_as_v61",
    "match_predictions",
    "wh_iou",
]

# Curves are drawn by ``utils.plots``; v6.1 has these two here.
_CURVES = frozenset({"plot_mc_curve", "plot_pr_curve"})


def __getattr__(name: str) -> Any:
    if name in _CURVES:
        return getattr(importlib.import_module("utils.plots.compat_figures"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
