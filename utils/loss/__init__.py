"""What training minimises: assignment of boxes to anchors, the detection loss, focal variants."""

from typing import Any

from utils.core.boxes import bbox_iou
from utils.core.v61 import import_served, served_names
from utils.loss.detection import DetectionLoss, LossItems, scale_gains
from utils.loss.focal import BCEBlurWithLogitsLoss, FocalLoss, QFocalLoss, smooth_bce
from utils.loss.targets import Assignment, assign_targets

smooth_BCE = smooth_bce  # the name scripts written for v6.1 import

__all__ = [
    "Assignment",
    "BCEBlurWithLogitsLoss",
    "DetectionLoss",
    "FocalLoss",
    "LossItems",
    "QFocalLoss",
    "assign_targets",
    "bbox_iou",
    "scale_gains",
    "smooth_BCE",
    "smooth_bce",
]

__all__ += served_names("utils.loss")  # for scripts that import all


def __getattr__(name: str) -> Any:
    return import_served("utils.loss", name)
