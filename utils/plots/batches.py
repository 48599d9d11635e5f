"""A batch of images with its boxes as one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.core.image import write_image
from utils.core.nms_defaults import CONF_THRES
from utils.plots.annotate import Annotator, color_for
from utils.plots.grid import image_grid
from utils.plots.names import LONGEST_ON_SHEET, drawn_name

_GAP = 4  # white pixels between the images
_CROWDED = 12  # boxes in one image
_SMALLEST_CELL = 256  # longer side in pixels up to which small images are enlarged, so that labels leave room


def plot_batch(
    images: torch.Tensor | np.ndarray,
    targets: torch.Tensor | np.ndarray,
    paths: Sequence[str | Path],
    file: Path,
    names: Sequence[str] = (),
    max_images: int = 16,
    max_side: int = 1920,
    conf_thres: float = CONF_THRES,
) -> None:
    """Write a grid of images with their boxes and file names.

    Args:
        images: [B, 3, H, W] RGB, uint8 or floating 0..1.
        targets: [N, 6] image, class, xywhn; or [N, 7] with a confidence, of which those below ``conf_thres`` are
            skipped.
        paths: file of each image; only the names are shown.
        file: image to write; the suffix gives the format.
        names: class names; a class without one is shown by its number.
        max_images: number of images to draw.
        max_side: largest width and height of the grid in pixels; larger images are made smaller.
    """
    count = min(len(images), max_images)
    bgr = _to_bgr(images[:count])  # [n, H, W, 3]
    rows_of = targets.detach().float().cpu().numpy() if isinstance(targets, torch.Tensor) else np.asarray(targets)
    columns = max(1, math.ceil(math.sqrt(count)))
    lines = max(1, math.ceil(count / columns))
    h, w = bgr.shape[1:3]
    fitting = min(max_side / (columns * (w + _GAP)), max_side / (lines * (h + _GAP)))
    scale = min(fitting, max(1.0, _SMALLEST_CELL / max(h, w)))
    size = max(1, int(w * scale)), max(1, int(h * scale))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    cells = []
    for index, image in enumerate(bgr):
        cell = image if size == (w, h) else cv2.resize(image, size, interpolation=method)
        name = Path(paths[index]).name if index < len(paths) else ""
        cells.append(_annotate(cell, rows_of[rows_of[:, 0] == index], name, names, conf_thres))
    empty = np.full((size[1], size[0], 3), 255, np.uint8)
    write_image(file, image_grid(cells or [empty], columns, _GAP))


def _annotate(
    cell: np.ndarray, targets: np.ndarray, caption: str, names: Sequence[str], conf_thres: float
) -> np.ndarray:
    """One cell of the grid with its boxes [n, 6 or 7] and the file name along the bottom.

    Where there are many boxes, labels are smaller and no label covers another one: those of small boxes come first.
    """
    h, w = cell.shape[:2]
    rows = [row for row in targets if len(row) <= 6 or row[6] >= conf_thres]
    crowded = len(rows) > _CROWDED
    text_size = max(8, round((h + w) / 90)) if crowded else max(11, round((h + w) / 64))
    annotator = Annotator(cell, line_width=max(1, round((h + w) / 500)), text_size=text_size)
    labelled = []
    # Large boxes first, so that their lines do not run through the small ones.
    for row in sorted(rows, key=lambda row: -row[4] * row[5]):
        index, (x, y, bw, bh) = int(row[1]), row[2:6]
        label = drawn_name(names, index, LONGEST_ON_SHEET) + (f" {row[6]:.2f}" if len(row) > 6 else "")
        box = ((x - bw / 2) * w, (y - bh / 2) * h, (x + bw / 2) * w, (y + bh / 2) * h)
        annotator.box_label(box, color=color_for(index))
        labelled.append((box, label, color_for(index)))
    annotator.text(0, h, caption)
    for box, label, color in reversed(labelled):
        annotator.label(box, label, color, only_free=crowded)
    return annotator.result()


def _to_bgr(images: torch.Tensor | np.ndarray) -> np.ndarray:
    """[B, 3, H, W] RGB of any kind to [B, H, W, 3] BGR uint8."""
    array = images.detach().cpu() if isinstance(images, torch.Tensor) else torch.from_numpy(np.asarray(images))
    if array.is_floating_point():
        array = (array.float() * 255.0).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(array.numpy().transpose(0, 2, 3, 1)[..., ::-1])
