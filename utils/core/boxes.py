"""Arithmetic on boxes and polygons: conversion of formats, mapping between images, overlaps.

The functions take tensors or numpy arrays, return the same type, and never change their arguments. Formats: ``xyxy``
corners, ``xywh`` centre and size; in pixels, or with the suffix ``n`` as fractions of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", torch.Tensor, np.ndarray)


def _library(values: Any) -> Any:
    """Return torch or numpy, whose functions of the same name (stack, maximum, clip) take ``values``."""
    return torch if isinstance(values, torch.Tensor) else np


def _assemble(like: Array, columns: Sequence[Any]) -> Array:
    """Return four new columns, followed by the columns of ``like`` after the fourth (confidence, class)."""
    lib = _library(like)
    box = lib.stack(list(columns), -1)
    return box if like.shape[-1] == 4 else lib.concatenate([box, like[..., 4:]], -1)


def xyxy2xywh(boxes: Array) -> Array:
    """Convert corners [..., 4+] to centre and size; columns after the fourth are kept."""
    left, top, right, bottom = (boxes[..., i] for i in range(4))
    return _assemble(boxes, [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def xywh2xyxy(boxes: Array) -> Array:
    """Convert centre and size [..., 4+] to corners; columns after the fourth are kept."""
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    low, high = centre - half, centre + half
    return _assemble(boxes, [low[..., 0], low[..., 1], high[..., 0], high[..., 1]])


def xywhn2xyxy(boxes: Array, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Array:
    """Convert fractions of a ``w`` x ``h`` image [..., 4+] to pixel corners, shifted by (padw, padh)."""
    left, top, right, bottom = (xywh2xyxy(boxes)[..., i] for i in range(4))
    return _assemble(boxes, [left * w + padw, top * h + padh, right * w + padw, bottom * h + padh])


def xyxy2xywhn(boxes: Array, w: float = 640, h: float = 640, clip: bool = False, eps: float = 0.0) -> Array:
    """Convert pixel corners [..., 4+] to centre and size as fractions of a ``w`` x ``h`` image.

    ``clip`` first limits the corners to the image, less ``eps`` pixels on the right and bottom edges.
    """
    inside = clip_coords(boxes, (h - eps, w - eps)) if clip else boxes
    x, y, width, height = (xyxy2xywh(inside)[..., i] for i in range(4))
    return _assemble(boxes, [x / w, y / h, width / w, height / h])


def xyn2xy(points: Array, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Array:
    """Convert points [..., 2] from fractions of a ``w`` x ``h`` image to pixels, shifted by (padw, padh)."""
    return _library(points).stack([points[..., 0] * w + padw, points[..., 1] * h + padh], -1)


def segment2box(points: np.ndarray, width: float = 640, height: float = 640) -> np.ndarray:
    """Return the corners [4] around those points [m, 2] of a polygon that are inside the image; zeros without any."""
    limit = np.array([width, height])
    visible = points[((points >= 0) & (points <= limit)).all(1)]  # [v, 2]
    if len(visible) == 0:
        return np.zeros(4, dtype=points.dtype)
    return np.concatenate([visible.min(0), visible.max(0)])


def segments2boxes(segments: Sequence[np.ndarray]) -> np.ndarray:
    """Return the xywh box [n, 4] around each polygon [m, 2], in the unit of the polygons."""
    if len(segments) == 0:
        return np.zeros((0, 4), dtype=np.float32)
    corners = np.stack([np.concatenate([points.min(0), points.max(0)]) for points in segments])  # [n, 4]
    return xyxy2xywh(corners)


def resample_segments(segments: Sequence[np.ndarray], n: int = 1000) -> list[np.ndarray]:
    """Resample each polygon to ``n`` points [n, 2], evenly spaced in vertex index from its first to its last vertex.

    Repeat the first vertex at the end for points on the closing edge.
    """
    resampled = []
    for points in segments:
        vertices = np.arange(len(points))
        stops = np.linspace(0, len(points) - 1, n)
        resampled.append(np.stack([np.interp(stops, vertices, points[:, axis]) for axis in (0, 1)], -1))
    return resampled


def clip_coords(boxes: Array, hw: Sequence[float]) -> Array:
    """Clip corners [..., 4+] to an image; ``hw`` begins with height and width."""
    lib, height, width = _library(boxes), hw[0], hw[1]
    limits = (width, height, width, height)
    return _assemble(boxes, [lib.clip(boxes[..., i], 0, limit) for i, limit in enumerate(limits)])


def unscale_coords(boxes: Array, ratio_wh: Sequence[float], pad_wh: Sequence[float], hw: Sequence[float]) -> Array:
    """Map corners [..., 4+] on a letterboxed image back to the original image of (height, width), clipped to it.

    Inverse of ``x * ratio + pad``, with ratio and padding per axis.
    """
    moved = [(boxes[..., i] - pad_wh[i % 2]) / ratio_wh[i % 2] for i in range(4)]
    return clip_coords(_assemble(boxes, moved), hw)


def scale_coords(
    net_hw: Sequence[float],
    boxes: Array,
    image_hw: Sequence[float],
    ratio_pad: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Array:
    """Map corners [..., 4+] on the model input back to the original image, clipped to it.

    Args:
        net_hw: height and width of the model input.
        boxes: pixel corners on that input.
        image_hw: height and width of the image, or its shape.
        ratio_pad: (ratio_wh, pad_wh) as returned by ``letterbox``; default: a centred letterbox with one ratio. v6.1
            uses the first ratio for both axes.
    """
    if ratio_pad is None:
        gain = min(net_hw[0] / image_hw[0], net_hw[1] / image_hw[1])
        pad_wh = ((net_hw[1] - image_hw[1] * gain) / 2, (net_hw[0] - image_hw[0] * gain) / 2)
        return unscale_coords(boxes, (gain, gain), pad_wh, image_hw)
    return unscale_coords(boxes, ratio_pad[0], ratio_pad[1], image_hw)


def _overlap_area(first: Array, second: Array) -> Array:
    """Return the area of the intersection of corner boxes whose shapes broadcast."""
    lib = _library(first)
    low, high = lib.maximum(first[..., :2], second[..., :2]), lib.minimum(first[..., 2:4], second[..., 2:4])
    sides = lib.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def _area(boxes: Array) -> Array:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(first: Array, second: Array) -> Array:
    """Return the IoU [n, m] of all pairs of corner boxes [n, 4] and [m, 4]; nan for two boxes without area."""
    rows, columns = first[:, None], second[None]
    shared = _overlap_area(rows, columns)
    union = _area(rows) + _area(columns) - shared
    with np.errstate(invalid="ignore"):
        return shared / union


def bbox_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    x1y1x2y2: bool = True,
    GIoU: bool = False,
    DIoU: bool = False,
    CIoU: bool = False,
    eps: float = 1e-7,
) -> torch.Tensor:
    """Return the IoU, GIoU, DIoU or CIoU of boxes row by row; differentiable.

    Args:
        box1: [n, 4], or [4] to compare one box with all of ``box2``.
        box2: [n, 4].
        x1y1x2y2: corners; False for centre and size.
        GIoU: subtract the share of the enclosing box that neither box covers (arXiv 1902.09630).
        DIoU: subtract the squared distance of the centres over the squared enclosing diagonal (arXiv 1911.08287).
        CIoU: DIoU minus a term for different aspect ratios (same paper), whose weight has no gradient.
        eps: avoids division by zero; as in v6.1 it is added to the heights, the union and the enclosing area.

    Returns:
        [n].
    """
    if not x1y1x2y2:
        box1, box2 = xywh2xyxy(box1), xywh2xyxy(box2)
    (width1, height1), (width2, height2) = ((box[..., 2:4] - box[..., :2]).unbind(-1) for box in (box1, box2))
    height1, height2 = height1 + eps, height2 + eps
    shared = _overlap_area(box1, box2)
    union = width1 * height1 + width2 * height2 - shared + eps
    iou = shared / union
    if not (GIoU or DIoU or CIoU):
        return iou

    low, high = torch.minimum(box1[..., :2], box2[..., :2]), torch.maximum(box1[..., 2:4], box2[..., 2:4])
    hull = high - low  # [..., 2] sides of the smallest box around both
    if not (DIoU or CIoU):
        hull_area = hull[..., 0] * hull[..., 1] + eps
        return iou - (hull_area - union) / hull_area

    twice_offset = (box2[..., :2] + box2[..., 2:4]) - (box1[..., :2] + box1[..., 2:4])
    distance = twice_offset.square().sum(-1) / 4 / (hull.square().sum(-1) + eps)
    if not CIoU:
        return iou - distance
    angle = torch.atan(width2 / height2) - torch.atan(width1 / height1)
    aspect = angle.square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + eps))
    return iou - distance - weight * aspect


def bbox_ioa(box: Array, boxes: Array, eps: float = 1e-7) -> Array:
    """Return the share [n] of each box [n, 4] that one box [4] covers (corners)."""
    return _overlap_area(box, boxes) / (_area(boxes) + eps)


def wh_iou(first: Array, second: Array) -> Array:
    """Return the IoU [n, m] of boxes with sizes [n, 2] and [m, 2] and one common corner."""
    smaller = _library(first).minimum(first[:, None], second[None])  # [n, m, 2]
    shared = smaller[..., 0] * smaller[..., 1]
    union = (first[:, 0] * first[:, 1])[:, None] + (second[:, 0] * second[:, 1])[None] - shared
    return shared / union
