"""Detections as the text of a YOLO label file."""

from __future__ import annotations

from torch import Tensor

from utils.core.boxes import xyxy2xywhn


def label_text(boxes: Tensor, hw: tuple[int, int], with_conf: bool) -> str:
    """One line per detection: class, centre x, y, width, height as fractions of the image, and confidence if asked.

    Args:
        boxes: [k, 6] x1 y1 x2 y2 in pixels, confidence, class.
        hw: height and width of the image.
    """
    height, width = hw
    lines = []
    for xywh, (conf, cls) in zip(xyxy2xywhn(boxes[:, :4], width, height).tolist(), boxes[:, 4:].tolist()):
        numbers = [*xywh, conf] if with_conf else xywh
        lines.append(" ".join([str(int(cls)), *(f"{v:.6g}" for v in numbers)]) + "\n")
    return "".join(lines)
