"""COCO's twelve metrics for any data set, computed by a COCO evaluator.

``faster-coco-eval`` is used if it is installed, else ``pycocotools``; both give the same values.
"""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
COCO_MEANINGS = (
    "IoU 0.50:0.95", "IoU 0.50", "IoU 0.75", "small (area below 32x32 px)", "medium", "large (area above 96x96 px)",
    "1 detection an image", "10", "100", "small", "medium", "large",
)  # fmt: skip
PACKAGE, INSTALL = "faster-coco-eval", "pip install faster-coco-eval"


@dataclass(frozen=True)
class CocoMetrics:
    """The metrics in the order of ``COCO_METRICS`` (nan: no labels), and the package that computed them."""

    values: tuple[float, ...]
    tool: str

    def by_name(self) -> dict[str, float]:
        """Return name -> value."""
        return dict(zip(COCO_METRICS, self.values, strict=True))


def coco_tool() -> str | None:
    """Return the package that computes the metrics; None when none is installed."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        try:
            import pycocotools.cocoeval  # noqa: F401
        except ImportError:
            return None
        return "pycocotools"
    return PACKAGE


def compute_coco_metrics(
    labels: np.ndarray, detections: np.ndarray, images: int, categories: int, tool: str | None = None
) -> CocoMetrics:
    """Evaluate the detections of ``images`` images, numbered from 0, in ``categories`` classes, numbered from 0.

    Args:
        labels: [m, 8] image, class, x, y, width, height in pixels (top left corner), area, 1 for crowd regions else 0.
        detections: [n, 7] image, class, x, y, width, height, confidence; in any order.
        tool: "pycocotools" or "faster-coco-eval"; None: see :func:`coco_tool`.

    Raises:
        ImportError: the package is not installed.
    """
    tool = tool or coco_tool()
    dataset, evaluator = _classes_of(tool)
    label_rows = [{**_box(row), "area": row[6], "iscrowd": int(row[7])} for row in labels.tolist()]
    detection_rows = [
        {**_box(row), "area": row[4] * row[5], "iscrowd": 0, "score": row[6]} for row in detections.tolist()
    ]
    both = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        for annotations in (label_rows, detection_rows):
            data = dataset()
            data.dataset = {
                "images": [{"id": number} for number in range(1, images + 1)],
                "categories": [{"id": number, "name": str(number)} for number in range(categories)],
                "annotations": [{"id": number, **box} for number, box in enumerate(annotations, 1)],  # 0: unmatched
            }
            data.createIndex()
            both.append(data)
        run = evaluator(*both, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = tuple(math.nan if value < 0 else float(value) for value in run.stats[: len(COCO_METRICS)])
    return CocoMetrics(values, str(tool))


def _box(row: list[float]) -> dict[str, Any]:
    return {"image_id": int(row[0]) + 1, "category_id": int(row[1]), "bbox": row[2:6]}


def _classes_of(tool: str | None) -> tuple[Any, Any]:
    """Return the classes of the data set and of the evaluator of a package."""
    if tool == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    import faster_coco_eval

    return faster_coco_eval.COCO, partial(faster_coco_eval.COCOeval_faster, print_function=lambda *_: None)
