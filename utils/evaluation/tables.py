"""The metrics of a validation as files: ``metrics.csv`` with a row per class, and ``metrics.json`` with everything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.core.files import write_atomic
from utils.core.output import write_table
from utils.evaluation.results import EvalResult
from utils.metrics.coco import CocoMetrics


@dataclass(frozen=True)
class ClassRow:
    """Metrics of one class; None where they are undefined, for a class without labels ("absent").

    ``precision``, ``recall``, ``f1``, ``true_positives`` and ``false_positives`` are those at the confidence with the
    best mean F1 and IoU 0.5; ``best_f1`` is the best F1 of this class, at ``best_f1_conf``.
    """

    number: int | None  # None: the mean over the classes
    name: str
    images: int
    labels: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    true_positives: int | None = None
    false_positives: int | None = None
    ap50: float | None = None
    ap75: float | None = None
    ap50_95: float | None = None
    best_f1: float | None = None
    best_f1_conf: float | None = None

    @property
    def absent(self) -> bool:
        """Whether the data set has no label of this class."""
        return self.labels == 0


def mean_row(result: EvalResult) -> ClassRow:
    """Return the means over the classes with labels; without labels only the counts."""
    ap = result.ap
    if len(ap.classes) == 0:
        return ClassRow(None, "all", result.images, result.labels)
    f1 = float(ap.f1_curve.mean(0)[ap.best])
    return ClassRow(
        None,
        "all",
        result.images,
        result.labels,
        precision=result.precision,
        recall=result.recall,
        f1=f1,
        true_positives=int(ap.tp.sum()),
        false_positives=int(ap.fp.sum()),
        ap50=result.map50,
        ap75=float(ap.ap[:, 5].mean()),
        ap50_95=result.map,
        best_f1=f1,
        best_f1_conf=ap.best_conf,
    )


def class_rows(result: EvalResult, names: Sequence[str]) -> list[ClassRow]:
    """Return a row for every class, in order."""
    ap = result.ap
    place = {int(kind): i for i, kind in enumerate(ap.classes)}
    best_f1, best_conf = ap.best_per_class()
    rows = []
    for number, name in enumerate(names):
        counts = int(result.images_per_class[number]), int(result.labels_per_class[number])
        if number not in place:
            rows.append(ClassRow(number, name, *counts))
            continue
        i = place[number]
        row = ClassRow(
            number,
            name,
            *counts,
            precision=float(ap.p[i]),
            recall=float(ap.r[i]),
            f1=float(ap.f1[i]),
            true_positives=int(ap.tp[i]),
            false_positives=int(ap.fp[i]),
            ap50=float(ap.ap[i, 0]),
            ap75=float(ap.ap[i, 5]),
            ap50_95=float(ap.ap[i].mean()),
            best_f1=float(best_f1[i]),
            best_f1_conf=float(best_conf[i]),
        )
        rows.append(row)
    return rows


def write_class_table(file: Path, result: EvalResult, names: Sequence[str]) -> None:
    """Write the means and a row per class; absent classes have empty cells, and ``absent`` in the last column."""
    columns = [item.name for item in fields(ClassRow)]
    lines: list[list[Any]] = [[*columns, "absent"]]
    for row in (mean_row(result), *class_rows(result, names)):
        cells = [getattr(row, name) for name in columns]
        shown = ["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in cells]
        lines.append([*shown, "absent" if row.absent else ""])
    write_table(file, lines)


def write_metrics_json(
    file: Path, result: EvalResult, names: Sequence[str], settings: Mapping[str, Any], coco: CocoMetrics | None
) -> None:
    """Write options, means, classes, COCO's metrics (null: not computed), times and the confusion matrix."""
    content = {
        "settings": dict(settings),
        "images": result.images,
        "labels": result.labels,
        "detections": result.detections,
        "all": _plain(mean_row(result)),
        "classes": [_plain(row) for row in class_rows(result, names)],
        "coco": None if coco is None else {"tool": coco.tool, **_nan_to_none(coco.by_name())},
        "ms_per_image": {name: round(ms, 3) for name, ms in result.ms_per_image.items()},
        "confusion_matrix": {
            "rows": "predicted, last: background",
            "columns": "true, last: background",
            "confidence": result.confusion.conf,
            "iou": result.confusion.iou_thres,
            "counts": result.confusion.matrix.tolist(),
        },
    }
    write_atomic(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _plain(row: ClassRow) -> dict[str, Any]:
    return {**asdict(row), "absent": row.absent}


def _nan_to_none(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
