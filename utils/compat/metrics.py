"""Names of ``utils.metrics`` and ``val`` of YOLOv5 v6.1 that differ in their arguments or results."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils.datasets.labels.yolo_text import yolo_detection_text
from utils.evaluation.coco_results import result_entry, rounded_rows
from utils.metrics import ap


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
    """Compute the metrics of each class that has labels.

    Args:
        tp: bool [n, thresholds].
        conf, pred_cls: [n].
        target_cls: [m].
        plot: write the four curves into ``save_dir``, with the ``names`` of the classes by their index.
        eps: without effect.

    Returns:
        tp, fp, precision, recall, F1 [c], AP [c, thresholds], class indices [c].
    """
    result = ap.ap_per_class(tp, conf, pred_cls, target_cls)
    if plot:
        known = names if isinstance(names, Mapping) else dict(enumerate(names))
        report = importlib.import_module("utils.evaluation.report")  # matplotlib is only loaded for plots
        report.save_curves(result, [str(known.get(int(kind), kind)) for kind in result.classes], Path(save_dir))
    return result.tp, result.fp, result.p, result.r, result.f1, result.ap, result.classes


def save_one_txt(predn: Tensor, save_conf: bool, shape: tuple[int, int], file: str | Path) -> None:
    """Write the detections [k, 6] (x1 y1 x2 y2 confidence class) of an image of ``shape`` (h, w) as a label file."""
    Path(file).write_text(yolo_detection_text(predn, shape, save_conf), encoding="utf-8")


def save_one_json(predn: Tensor, jdict: list[dict[str, Any]], path: Path, class_map: Sequence[int]) -> None:
    """Append the detections [k, 6] of an image to a list in COCO's format; the image id is its file name, or the
    number in it."""
    name, rows = Path(path).stem, predn.cpu().double().numpy()
    image_id = int(name) if name.isdecimal() else name
    kinds = rows[:, 5].astype(int).tolist()
    jdict.extend(result_entry(image_id, class_map[k], row) for k, row in zip(kinds, rounded_rows(rows).tolist()))
