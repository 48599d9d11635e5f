"""Non-maximum suppression (NMS): from the candidates of the model to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from utils.core.boxes import xywh2xyxy
from utils.core.errors import InputError
from utils.core.nms_defaults import CONF_THRES, EVAL_CONF_THRES, EVAL_IOU_THRES, EVAL_MAX_DET, IOU_THRES, MAX_DET
from utils.core.nms_kernel import nms

_MIN_SIDE_PX = 2.0  # as in v6.1: smaller candidates are noise
_CLASS_STEP_PX = 7680.0
_FIRST_ROUND = 1024  # candidates in the first round of NMS; each further round has three times as many


def _annotated(labels: torch.Tensor, width: int) -> torch.Tensor:
    """Convert labels [m, 5] (class, xywh px) to candidates [m, width] with confidence 1."""
    rows = labels.new_zeros(len(labels), width)
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1.0
    rows[torch.arange(len(labels), device=labels.device), 5 + labels[:, 0].long()] = 1.0
    return rows


def _best_first(confidence: torch.Tensor, most: int) -> torch.Tensor:
    """Return the indices of the ``most`` highest values of [n], falling; equal values keep their order."""
    if len(confidence) <= most:
        return confidence.argsort(descending=True, stable=True)
    # An untrained model has millions of candidates: sort only those that can be among the best.
    floor = confidence.topk(most, sorted=False).values.min()
    contenders = (confidence >= floor).nonzero().flatten()
    return contenders[confidence[contenders].argsort(descending=True, stable=True)[:most]]


def _score(
    candidates: torch.Tensor, conf_thres: float, classes: torch.Tensor | None, multi_label: bool, most: int
) -> torch.Tensor:
    """Convert candidates [n, 5 + nc] (xywh, objectness, class scores) to the ``most`` best rows [m, 6].

    Rows are xyxy, confidence, class, by falling confidence above ``conf_thres``. A candidate gives a row for its best
    class, or with ``multi_label`` for each class above the threshold; then ``classes`` select.
    """
    confidence = candidates[:, 5:] * candidates[:, 4:5]  # [n, nc]
    kinds = 1 if not multi_label else confidence.shape[1]  # maximum rows per candidate
    best, kind = (confidence.flatten(), None) if multi_label else confidence.max(1)
    place = (best > conf_thres).nonzero().flatten()
    if classes is not None:
        place = place[torch.isin(place % kinds if kind is None else kind[place], classes)]
    best = best[place]
    order = _best_first(best, most)
    place, best = place[order], best[order]
    of_class = place % kinds if kind is None else kind[place]
    boxes = xywh2xyxy(candidates[place // kinds, :4])
    return torch.cat([boxes, best[:, None], of_class[:, None].to(best.dtype)], 1)


def _suppress(rows: torch.Tensor, iou_thres: float, agnostic: bool, max_det: int) -> torch.Tensor:
    """Return the first ``max_det`` rows that NMS keeps of rows [m, 6] sorted by falling confidence.

    Whether a row is kept depends on better rows only. So NMS runs on the best rows first; each further round adds the
    next rows to those kept so far, until there are enough. The remaining rows, often most of them, are never compared.
    """
    boxes, best = rows[:, :4], rows[:, 4]
    if not agnostic and len(rows):
        # Move each class to a separate area, so that boxes of different classes never overlap. A smaller step would be
        # more precise (float32 leaves 1/16 px at class 79), but would give other results than v6.1 in borderline cases.
        boxes = boxes + rows[:, 5:6] * (boxes.max() - boxes.min() + 1).clamp(min=_CLASS_STEP_PX)
    # Without classes few rows are kept in the first round: a second round for a few more costs more than it saves.
    size = len(rows) if agnostic and len(rows) <= 2 * _FIRST_ROUND else _FIRST_ROUND
    kept = nms(boxes[:size], best[:size], iou_thres)
    while size < len(rows) and len(kept) < max_det:
        rows_of_round = torch.cat([kept, torch.arange(size, min(3 * size, len(rows)), device=rows.device)])
        kept = rows_of_round[nms(boxes[rows_of_round], best[rows_of_round], iou_thres)]
        size *= 3
    return rows[kept[:max_det]]


@torch.no_grad()
def non_max_suppression(
    prediction: torch.Tensor,
    conf_thres: float = CONF_THRES,
    iou_thres: float = IOU_THRES,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[torch.Tensor] = (),
    max_det: int = 300,
    max_nms: int = 30000,
) -> list[torch.Tensor]:
    """Return the detections of each image, best first. There is no time limit.

    Args:
        prediction: [B, N, 5 + nc] xywh in pixels, objectness, class scores; not changed.
        conf_thres: objectness, and objectness times class score, must be above it.
        iou_thres: of two boxes of a class with a higher IoU, the one with the lower confidence is dropped.
        classes: keep these class indices only.
        agnostic: compare boxes of different classes as well.
        multi_label: report a box once for each class above the threshold, not only for its best class.
        labels: per image, labels [m, 5] (class, xywh px) to add with confidence 1; empty for none.
        max_det: maximum detections per image.
        max_nms: maximum candidates per image: those with the highest confidence.

    Returns:
        B tensors [k, 6], float32: x1 y1 x2 y2 confidence class, on the device of ``prediction``.

    Raises:
        InputError: a threshold outside 0..1, or ``labels`` of another length than the batch.
    """
    for name, value in (("conf_thres", conf_thres), ("iou_thres", iou_thres)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}, expected a value from 0 to 1")
    if len(labels) not in (0, len(prediction)):
        raise InputError(f"labels are given for {len(labels)} images, but the batch has {len(prediction)}")

    width = prediction.shape[2]
    chosen = None if classes is None else torch.as_tensor(classes, dtype=torch.long, device=prediction.device)
    # The objectness drops nearly all candidates of the batch before anything else is computed.
    passing = prediction[..., 4] > conf_thres  # [B, N]
    detections = []
    for index, (candidates, mask) in enumerate(zip(prediction, passing, strict=True)):
        kept = candidates[mask].float()  # float32: half precision has no single pixels beyond 2048
        x, y, w, h = kept[:, :4].unbind(1)
        usable = (x + y + w + h).isfinite() & (w >= _MIN_SIDE_PX) & (h >= _MIN_SIDE_PX)
        kept[:, 4].masked_fill_(~usable, 0.0)  # never above a threshold; cheaper than another copy
        if len(labels) and len(labels[index]):
            kept = torch.cat([kept, _annotated(labels[index].to(kept), width)])
        rows = _score(kept, conf_thres, chosen, multi_label and width > 6, max_nms)
        detections.append(_suppress(rows, iou_thres, agnostic, max_det))
    return detections


@dataclass(frozen=True)
class Thresholds:
    """Arguments of :func:`non_max_suppression`; the defaults are those of detection."""

    conf: float = CONF_THRES
    iou: float = IOU_THRES
    max_det: int = MAX_DET
    classes: Sequence[int] | None = None
    agnostic: bool = False

    def nms(self, prediction: torch.Tensor) -> list[torch.Tensor]:
        """Return the detections [k, 6] of each image in ``prediction`` [B, N, nc + 5]."""
        return non_max_suppression(prediction, self.conf, self.iou, self.classes, self.agnostic, max_det=self.max_det)


EVAL_THRESHOLDS = Thresholds(EVAL_CONF_THRES, EVAL_IOU_THRES, EVAL_MAX_DET)
