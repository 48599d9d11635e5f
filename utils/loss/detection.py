"""The loss of a detection head: boxes by CIoU, objectness and classes by binary cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from utils.config.hyp import Hyp
from utils.core.boxes import bbox_iou
from utils.core.dist import ALONE, Ranks
from utils.loss.focal import FocalLoss, WeightedBCE, smooth_bce
from utils.loss.targets import Assignment, assign_targets

# Weight of the objectness loss of each level, finest first. Coarse levels have few cells and a large share of objects.
_BALANCE_OF_THREE = (4.0, 1.0, 0.4)
_BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)


@dataclass(frozen=True)
class LossItems:
    """Scalars of one batch.

    Attributes:
        total: the sum of the parts times the batch size, for ``backward``. With several processes, the mean of their
            gradients is the gradient of the whole batch.
        box, obj, cls: the parts, times their gains, without gradient; of the whole batch of all processes.
    """

    total: Tensor
    box: Tensor
    obj: Tensor
    cls: Tensor

    @property
    def check(self) -> Tensor:
        """A number that is finite only if the losses of all processes are."""
        return self.total.detach() + self.box + self.obj + self.cls


def scale_gains(hyp: Hyp, nl: int, nc: int, imgsz: int) -> Hyp:
    """Scale gains for 3 levels, 80 classes and 640 px to another model and image size.

    The sums over levels grow with ``nl``, the class loss with ``nc``; objectness has (imgsz / 640)^2 as many cells.
    """
    per_level = 3 / nl
    return replace(
        hyp,
        box=hyp.box * per_level,
        cls=hyp.cls * per_level * nc / 80,
        obj=hyp.obj * per_level * (imgsz / 640) ** 2,
    )


def _keep_last_claim(matches: Assignment, shape: Sequence[int]) -> Tensor:
    """Return which matches [m] are the last ones of their cell and anchor. ``shape`` is (B, na, ny, nx).

    Assignment with duplicate indices has no defined order on a GPU.
    """
    batch, na, ny, nx = shape
    slot = ((matches.image * na + matches.anchor) * ny + matches.gj) * nx + matches.gi
    order = torch.arange(len(slot), device=slot.device)
    last = order.new_full((batch * na * ny * nx,), -1).scatter_reduce(0, slot, order, "amax")
    return last[slot] == order


class DetectionLoss:
    """Loss of YOLOv5 v6.1 over the raw predictions of a head.

    Per level, over the matches of :func:`assign_targets`: 1 - CIoU, and cross-entropy of the classes (skipped for a
    single class); over all cells: cross-entropy of objectness against the CIoU of the predicted box, 0 without a
    match. Of several boxes with one cell and anchor, objectness takes the last in the order of
    :func:`assign_targets`, as v6.1 on a CPU, here on every device.

    Args:
        anchors: [nl, na, 2] in cells of their level: pixels divided by the stride.
        strides: [nl] pixels per cell, finest level first.
        nc: number of classes.
        hyp: gains, already scaled (see :func:`scale_gains`), ``cls_pw``, ``obj_pw``, ``fl_gamma``,
            ``anchor_t`` and ``label_smoothing``.
        ranks: the processes that share each batch.

    Raises:
        ValueError: the numbers of levels differ or the levels are not ordered finest first.
    """

    def __init__(self, anchors: Tensor, strides: Tensor, nc: int, hyp: Hyp, ranks: Ranks = ALONE) -> None:
        pixels = [float(stride) for stride in strides]
        if len(pixels) != len(anchors):
            raise ValueError(f"anchors of {len(anchors)} levels, but strides of {len(pixels)}")
        if pixels != sorted(pixels):
            raise ValueError(f"strides must ascend, because each level has its own weight; got {pixels}")
        self.anchors = anchors.detach().float()
        self.nc = nc
        self.hyp = hyp
        self.ranks = ranks
        nl = len(pixels)
        coarser = _BALANCE[-1:] * max(0, nl - len(_BALANCE))
        self.balance = _BALANCE_OF_THREE if nl == 3 else (_BALANCE + coarser)[:nl]
        self._positive, self._negative = smooth_bce(hyp.label_smoothing)
        self._cls_loss = self._cross_entropy(hyp.cls_pw)
        self._obj_loss = self._cross_entropy(hyp.obj_pw)

    def _cross_entropy(self, pos_weight: float) -> WeightedBCE:
        if self.hyp.fl_gamma > 0:
            return FocalLoss(self.hyp.fl_gamma, pos_weight=pos_weight)
        return WeightedBCE(pos_weight)

    def __call__(self, preds: Sequence[Tensor], targets: Tensor, images: int | None = None) -> LossItems:
        """Compute the loss of one batch in float32, also under autocast.

        Args:
            preds: raw predictions of each level [B, na, ny, nx, 5 + nc] in any floating type.
            targets: [N, 6] image, class, xywh as fractions; on the device of ``preds``. N may be 0.
            images: B, or 0 when none of them counts (:class:`utils.datasets.loader.RankBatches`); None: B.
        """
        device = preds[0].device
        if self.anchors.device != device:
            self.anchors = self.anchors.to(device)
        with torch.autocast(device.type, enabled=False):
            grids = [(level.shape[2], level.shape[3]) for level in preds]
            matches = assign_targets(targets.float(), grids, self.anchors, self.hyp.anchor_t)
            parts = [self._level(level, of_level) for level, of_level in zip(preds, matches, strict=True)]
            batch = preds[0].shape[0]
            if self.ranks.size > 1:
                parts, batch = self._of_shared_batch(parts, matches, batch if images is None else images)
            box = self.hyp.box * torch.stack([part[0] for part in parts]).sum()
            cls = self.hyp.cls * torch.stack([part[2] for part in parts]).sum()
            obj = self.hyp.obj * torch.stack([w * part[1] for w, part in zip(self.balance, parts, strict=True)]).sum()
            total = (box + obj + cls) * (batch * self.ranks.size)  # the gradients are averaged over the ranks
            logged = self.ranks.sum(torch.stack([box, obj, cls]).detach().cpu()) if self.ranks.size > 1 else None
        box, obj, cls = (box.detach(), obj.detach(), cls.detach()) if logged is None else logged.to(device)
        return LossItems(total, box, obj, cls)

    def _of_shared_batch(
        self, parts: Sequence[tuple[Tensor, Tensor, Tensor]], matches: Sequence[Assignment], images: int
    ) -> tuple[list[tuple[Tensor, Tensor, Tensor]], int]:
        """Return this rank's part of the losses of the whole batch, and the images of the whole batch.

        Means over matches or cells, times this rank's share of them, add up to the means over all. The predictions of
        all ranks have the same shape, so the share of cells is that of images.
        """
        own = torch.tensor([*map(len, matches), images], dtype=torch.float64)
        shared = self.ranks.sum(own.clone())
        *of_matches, of_cells = (own / shared.clamp(min=1)).tolist()
        weighted = [(box * m, obj * of_cells, cls * m) for (box, obj, cls), m in zip(parts, of_matches, strict=True)]
        return weighted, int(shared[-1])

    def _level(self, level: Tensor, matches: Assignment) -> tuple[Tensor, Tensor, Tensor]:
        """Return box, objectness and class loss of one level, without gains."""
        goal = torch.zeros(level.shape[:4], device=level.device)  # [B, na, ny, nx] float32
        box = cls = goal.new_zeros(())
        if len(matches):
            # Only the matched rows are converted to float32: the whole level would need twice the memory.
            rows = level[matches.image, matches.anchor, matches.gj, matches.gi].float()  # [m, 5 + nc]
            iou = self._match_iou(rows, matches)  # [m]
            box = (1 - iou).mean()
            if self.nc > 1:
                cls = self._cls_loss(rows[:, 5:], self._class_goal(rows[:, 5:], matches.cls))
            keep = _keep_last_claim(matches, goal.shape)
            # Without duplicates the order of writing does not matter.
            where = tuple(index[keep] for index in (matches.image, matches.anchor, matches.gj, matches.gi))
            goal[where] = iou.detach().clamp(min=0)[keep]
        return box, self._obj_loss(level[..., 4].float(), goal), cls

    @staticmethod
    def _match_iou(rows: Tensor, matches: Assignment) -> Tensor:
        """Return the CIoU [m] of the predicted boxes of ``rows`` [m, 5 + nc] and the matched boxes, in cells."""
        spread = rows[:, :4].sigmoid() * 2
        centre = spread[:, :2] - 0.5  # -0.5 .. 1.5: half a cell into the neighbours
        size = spread[:, 2:].square() * matches.anchor_wh  # 0 .. 4 times the anchor
        return bbox_iou(torch.cat([centre, size], dim=1), matches.box, x1y1x2y2=False, CIoU=True)

    def _class_goal(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return smoothed one-hot rows [m, nc]."""
        goal = torch.full_like(logits, self._negative)
        return goal.scatter_(1, classes[:, None], self._positive)
