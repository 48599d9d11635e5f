"""Non-maximum suppression: from the model's thousands of candidates to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from utils.core.boxes import xywh2xyxy
from utils.core.errors import InputError
from utils.core.nms_kernel import nms

_MIN_SIDE_PX = 2.0  # as in v6.1: thinner candidates are noise. Its upper bound is not needed here.
_CLASS_STEP_PX = 7680.0
_FIRST_ROUND = 1024  # how many of the best candidates meet first; each further round triples their number


def _annotated(labels: torch.Tensor, width: int) -> torch.Tensor:
    """Known boxes [m, 5] (class, xywh px) as certain candidates [m, width], to be merged with the model's own."""
    rows = labels.new_zeros(len(labels), width)
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1.0
    rows[torch.arange(len(labels), device=labels.device), 5 + labels[:, 0].long()] = 1.0
    return rows


def _best_first(confidence: torch.Tensor, most: int) -> torch.Tensor:
    """Indices of the ``most`` highest values of [n], falling; equal ones keep their order, so runs can be repeated."""
    if len(confidence) <= most:
        return confidence.argsort(descending=True, stable=True)
    # Millions may pass while a model is young: sort only those that can be among the first.
    floor = confidence.topk(most, sorted=False).values.min()
    contenders = (confidence >= floor).nonzero().flatten()
    return contenders[confidence[contenders].argsort(descending=True, stable=True)[:most]]


def _score(
    candidates: torch.Tensor, conf_thres: float, classes: torch.Tensor | None, multi_label: bool, most: int
) -> torch.Tensor:
    """Candidates [n, 5 + nc] (xywh, objectness, class scores) to the ``most`` best rows [m, 6] over the limit.

    Rows are xyxy, confidence, class, by falling confidence. A candidate stands for its best class, or with
    ``multi_label`` for each class that passes; then ``classes`` choose.
    """
    confidence = candidates[:, 5:] * candidates[:, 4:5]  # [n, nc]
    kinds = 1 if not multi_label else confidence.shape[1]  # how many rows a candidate may become
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
    """The first ``max_det`` survivors among rows [m, 6] sorted by falling confidence.

    Whether a row survives depends on better rows only. So the best come first, and in each further round the survivors
    so far meet the next ones, until there are enough of them; the rest, whose number may be large, is never looked at.
    """
    boxes, best = rows[:, :4], rows[:, 4]
    if not agnostic and len(rows):
        # Each class is moved to an area of its own, so that boxes of different classes never meet. A shorter step
        # would cost less precision (float32 leaves 1/16 px at class 79), but then borderline pairs would be decided
        # otherwise than by v6.1.
        boxes = boxes + rows[:, 5:6] * (boxes.max() - boxes.min() + 1).clamp(min=_CLASS_STEP_PX)
    # Where all meet all, few survive the first round: a second one for a few more costs more than it saves.
    size = len(rows) if agnostic and len(rows) <= 2 * _FIRST_ROUND else _FIRST_ROUND
    kept = nms(boxes[:size], best[:size], iou_thres)
    while size < len(rows) and len(kept) < max_det:
        meeting = torch.cat([kept, torch.arange(size, min(3 * size, len(rows)), device=rows.device)])
        kept = meeting[nms(boxes[meeting], best[meeting], iou_thres)]
        size *= 3
    return rows[kept[:max_det]]


@torch.no_grad()
def non_max_suppression(
    prediction: torch.Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[torch.Tensor] = (),
    max_det: int = 300,
    max_nms: int = 30000,
) -> list[torch.Tensor]:
    """Detections of each image, best first; every image gets its answer, however long it takes.

    Args:
        prediction: [B, N, 5 + nc] xywh in pixels, objectness, class scores; left as it is.
        conf_thres: objectness, and objectness times class score, must be above it.
        iou_thres: of two boxes of a class that overlap more, the less confident goes.
        classes: keep these class indices only.
        agnostic: boxes of different classes suppress one another too.
        multi_label: a box may be reported once for each class that passes, instead of for its best one.
        labels: per image, known boxes [m, 5] (class, xywh px) to mix in with confidence 1; empty for none.
        max_det: most detections per image.
        max_nms: most candidates per image that enter; the most confident ones.

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
    # One look at the objectness of the whole batch discards nearly all candidates before anything else is computed.
    passing = prediction[..., 4] > conf_thres  # [B, N]
    detections = []
    for index, (candidates, mask) in enumerate(zip(prediction, passing, strict=True)):
        kept = candidates[mask].float()  # float32: half precision cannot tell pixels apart beyond 2048
        x, y, w, h = kept[:, :4].unbind(1)
        usable = (x + y + w + h).isfinite() & (w >= _MIN_SIDE_PX) & (h >= _MIN_SIDE_PX)
        kept[:, 4].masked_fill_(~usable, 0.0)  # never above a threshold; cheaper than another copy
        if len(labels) and len(labels[index]):
            kept = torch.cat([kept, _annotated(labels[index].to(kept), width)])
        rows = _score(kept, conf_thres, chosen, multi_label and width > 6, max_nms)
        detections.append(_suppress(rows, iou_thres, agnostic, max_det))
    return detections
