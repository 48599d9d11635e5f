"""Precision, recall and average precision of each class, and the fitness of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# numpy 2 renamed the trapezoidal rule.
_trapezoid = np.trapezoid if hasattr(np, "trapezoid") else np.trapz  # type: ignore[attr-defined] # noqa: NPY201

_CURVE_POINTS = 1000  # of the confidences 0..1 in the curves
_RECALL_POINTS = np.linspace(0, 1, 101)  # COCO's interpolation points
_FITNESS_WEIGHTS = np.array([0.0, 0.0, 0.1, 0.9])  # of precision, recall, mAP50, mAP50-95
_TINY = 1e-16


@dataclass(frozen=True)
class ApResult:
    """Metrics of each class with labels, by class index; c classes, t IoU thresholds.

    Attributes:
        tp, fp: [c] true and false positives at the confidence with the best mean F1, at the lowest IoU threshold.
        p, r, f1: [c] precision, recall and their harmonic mean at that confidence.
        ap: [c, t] average precision.
        classes: [c] class indices.
        px: [1000] x axis of the curves: confidence (for ``py``: recall).
        py: [c, 1000] precision over recall at the lowest IoU threshold.
        f1_curve, p_curve, r_curve: [c, 1000] over confidence.
        best: position in ``px`` of the confidence with the best mean F1.
    """

    tp: np.ndarray
    fp: np.ndarray
    p: np.ndarray
    r: np.ndarray
    f1: np.ndarray
    ap: np.ndarray
    classes: np.ndarray
    px: np.ndarray
    py: np.ndarray
    f1_curve: np.ndarray
    p_curve: np.ndarray
    r_curve: np.ndarray
    best: int = 0

    @property
    def best_conf(self) -> float:
        """The confidence with the best mean F1, at which ``p``, ``r``, ``f1``, ``tp`` and ``fp`` are given."""
        return float(self.px[self.best])

    def best_per_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the best F1 [c] of each class, and the confidence [c] where it is reached."""
        if len(self.classes) == 0:
            return np.zeros(0), np.zeros(0)
        return self.f1_curve.max(1), self.px[self.f1_curve.argmax(1)]

    def means(self) -> tuple[float, float, float, float]:
        """Return the mean precision, recall, mAP at the lowest IoU threshold and over all; zeros without a class."""
        if len(self.classes) == 0:
            return 0.0, 0.0, 0.0, 0.0
        return float(self.p.mean()), float(self.r.mean()), float(self.ap[:, 0].mean()), float(self.ap.mean())


def compute_ap(
    recall: np.ndarray | Sequence[float], precision: np.ndarray | Sequence[float]
) -> tuple[float, np.ndarray, np.ndarray]:
    """Compute the area under a precision-recall curve, by the trapezoidal rule over COCO's 101 recall points.

    Args:
        recall: [m] rising.
        precision: [m].

    Returns:
        The area; the monotonic envelope of the precision [m + 2]; the recall of its points [m + 2].
    """
    reached = np.concatenate([[0.0], recall, [1.0]])
    raw = np.concatenate([[1.0], precision, [0.0]])
    envelope = np.maximum.accumulate(raw[::-1])[::-1]
    area = _trapezoid(np.interp(_RECALL_POINTS, reached, envelope), _RECALL_POINTS)
    return float(area), envelope, reached


@dataclass
class _ClassCurves:
    """The curves [1000] of one class, and its average precision at each threshold [t]."""

    precision: np.ndarray
    recall: np.ndarray
    precision_of_recall: np.ndarray
    ap: np.ndarray


def _class_curves(hits: np.ndarray, conf: np.ndarray, labels: int, axis: np.ndarray) -> _ClassCurves:
    """Compute the curves of one class from its detections, best first: ``hits`` bool [m, t], ``conf`` [m]."""
    thresholds = hits.shape[1]
    if len(hits) == 0:
        zeros = np.zeros(len(axis))
        return _ClassCurves(zeros, zeros, zeros, np.zeros(thresholds))
    true_positives = hits.cumsum(0)  # [m, t] among the best 1, 2, ... detections
    recall = true_positives / (labels + _TINY)
    precision = true_positives / np.arange(1, len(hits) + 1)[:, None]
    curves = [compute_ap(recall[:, j], precision[:, j]) for j in range(thresholds)]
    _, envelope, reached = curves[0]
    # np.interp needs a rising axis; confidence falls, so both are negated.
    return _ClassCurves(
        precision=np.interp(-axis, -conf, precision[:, 0], left=1),
        recall=np.interp(-axis, -conf, recall[:, 0], left=0),
        precision_of_recall=np.interp(axis, reached, envelope),
        ap=np.array([area for area, _, _ in curves]),
    )


def ap_per_class(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray) -> ApResult:
    """Compute the metrics of each class with labels, over a whole data set.

    A class without detections has 0; a class without labels is skipped.

    Args:
        tp: bool [n, t]: whether a detection is correct at each IoU threshold.
        conf: [n] their confidences, in any order.
        pred_cls: [n] their classes.
        target_cls: [m] the classes of all labels.
    """
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = np.asarray(tp, dtype=bool)[order], conf[order], pred_cls[order]
    classes, labels = np.unique(target_cls, return_counts=True)
    axis = np.linspace(0, 1, _CURVE_POINTS)

    results = []
    for kind, count in zip(classes, labels, strict=True):
        of_class = pred_cls == kind
        results.append(_class_curves(tp[of_class], conf[of_class], int(count), axis))

    def table(rows: list[np.ndarray], width: int) -> np.ndarray:
        return np.stack(rows) if rows else np.zeros((0, width))

    p_curve = table([result.precision for result in results], _CURVE_POINTS)
    r_curve = table([result.recall for result in results], _CURVE_POINTS)
    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + _TINY)
    best = int(f1_curve.mean(0).argmax()) if results else 0
    p, r, f1 = p_curve[:, best], r_curve[:, best], f1_curve[:, best]
    true_positives = (r * labels).round()
    return ApResult(
        tp=true_positives,
        fp=(true_positives / (p + _TINY) - true_positives).round(),
        p=p,
        r=r,
        f1=f1,
        ap=table([result.ap for result in results], tp.shape[1]),
        classes=classes.astype(int),
        px=axis,
        py=table([result.precision_of_recall for result in results], _CURVE_POINTS),
        f1_curve=f1_curve,
        p_curve=p_curve,
        r_curve=r_curve,
        best=best,
    )


def fitness(x: np.ndarray) -> np.ndarray:
    """Return 0.1 mAP@.5 + 0.9 mAP@.5:.95 of rows [..., 4+] (P, R, mAP@.5, mAP@.5:.95)."""
    return np.asarray(x)[..., :4] @ _FITNESS_WEIGHTS
