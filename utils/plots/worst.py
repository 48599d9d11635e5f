"""A sheet of images with their detected and missed objects and false detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.core.image import write_image
from utils.plots.annotate import Annotator
from utils.plots.grid import image_grid
from utils.plots.names import LONGEST_ON_SHEET, drawn_name

DETECTED, MISSED, FALSE = (80, 175, 60), (230, 130, 0), (40, 40, 225)  # green, blue, red as b, g, r
_CELL_WH = (560, 440)
_GAP = 10
_TEXT = 15


@dataclass(frozen=True)
class ImageErrors:
    """One image: ``labels`` [n, 5] class, xyxy px; ``missed`` bool [n]; ``detections`` [k, 6]; ``correct`` bool [k]."""

    path: str
    labels: np.ndarray
    missed: np.ndarray
    detections: np.ndarray
    correct: np.ndarray


def plot_worst(
    cases: Sequence[ImageErrors], read: Callable[[str], np.ndarray], names: Sequence[str], file: Path, columns: int = 4
) -> None:
    """Write a sheet of images: detected objects green, missed ones blue, false detections red with their confidence.

    Args:
        cases: images in the order shown, at least one.
        read: path -> HWC BGR uint8.
        names: class names.
        file: image to write; the suffix gives the format.
    """
    columns = min(columns, len(cases))
    grid = image_grid([_cell(case, read(case.path), names) for case in cases], columns, _GAP)
    sheet = cv2.copyMakeBorder(grid, 3 * _TEXT, _GAP, _GAP, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    legend = Annotator(sheet, text_size=int(1.2 * _TEXT), in_place=True)
    place = _GAP
    for text, color in (("detected", DETECTED), ("missed", MISSED), ("false: no such object there", FALSE)):
        legend.text(place, _TEXT // 2, f" {text} ", color)
        place += 11 * len(text) + 60
    write_image(file, sheet)


def _cell(case: ImageErrors, image: np.ndarray, names: Sequence[str]) -> np.ndarray:
    width, height = _CELL_WH
    inner = height - 2 * _TEXT  # the caption is below the image
    scale = min(width / image.shape[1], inner / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    pen = Annotator(small, line_width=2, text_size=_TEXT - 2, in_place=True)
    zoom = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2)
    for box in case.detections[case.correct]:
        pen.box_label(box[:4] * zoom, "", DETECTED)
    for box in case.labels[case.missed]:
        pen.box_label(box[1:] * zoom, drawn_name(names, int(box[0]), LONGEST_ON_SHEET), MISSED)
    for box in case.detections[~case.correct]:
        pen.box_label(box[:4] * zoom, f"{drawn_name(names, int(box[5]), LONGEST_ON_SHEET)} {box[4]:.2f}", FALSE)
    cell = np.full((height, width, 3), 245, np.uint8)
    left, top = (width - size[0]) // 2, (inner - size[1]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    counts = f"{int(case.missed.sum())} of {len(case.labels)} missed, {int((~case.correct).sum())} false"
    caption = Annotator(cell, text_size=_TEXT, in_place=True)
    caption.text(0, height, f"{Path(case.path).name}: {counts}")
    return cell
