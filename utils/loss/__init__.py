"""What training minimises: assignment of boxes to anchors, the detection loss, focal variants."""

from utils.boxes import bbox_iou
from utils.loss.compat import ComputeLoss
from utils.loss.detection import DetectionLoss, LossItems, scale_gains
from utils.loss.focal import BCEBlurWithLogitsLoss, FocalLoss, QFocalLoss, smooth_bce
from utils.loss.targets import Assignment, assign_targets

smooth_BCE = smooth_bce  # the name scripts written for v6.1 import

__all__ = [
    "Assignment",
    "BCEBlurWithLogitsLoss",
    "ComputeLoss",
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
