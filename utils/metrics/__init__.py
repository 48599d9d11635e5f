"""Metrics of detections: matching, average precision, confusion matrix."""

from typing import Any

from utils.core.boxes import bbox_ioa, bbox_iou, box_iou, wh_iou
from utils.core.v61 import import_served, served_names
from utils.metrics.ap import ApResult, compute_ap, fitness
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.matching import match_as_v61, match_predictions

__all__ = [
    "ApResult",
    "ConfusionMatrix",
    "bbox_ioa",
    "bbox_iou",
    "box_iou",
    "compute_ap",
    "fitness",
    "match_as_v61",
    "match_predictions",
    "wh_iou",
]

__all__ += served_names("utils.metrics")  # for scripts that import all


def __getattr__(name: str) -> Any:
    return import_served("utils.metrics", name)
