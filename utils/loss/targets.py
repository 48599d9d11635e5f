"""Assignment of targets to the cells and anchors of each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A cell can predict centres up to half a cell beyond its edges, so the nearest neighbour in x and the one in y can
# predict a box as well. Steps (x, y) to: the cell itself, left, above, right, below.
_STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))
_REACH = 0.5


@dataclass(frozen=True)
class Assignment:
    """The m matches of one level; a box has one match for each cell and anchor that has to predict it.

    Attributes:
        image, anchor, gj, gi: [m] int64; image of the batch, anchor of the level, row and column of the cell.
        box: [m, 4] centre relative to the corner of the cell, and size; in cells.
        anchor_wh: [m, 2] size of the anchor in cells.
        cls: [m] int64.
    """

    image: Tensor
    anchor: Tensor
    gj: Tensor
    gi: Tensor
    box: Tensor
    anchor_wh: Tensor
    cls: Tensor

    def __len__(self) -> int:
        return len(self.cls)


def _reachable(centre: Tensor, grid_wh: Tensor) -> Tensor:
    """Return whether the cell at each step of ``_STEPS`` can predict a centre [n, 2] (in cells): bool [5, n].

    A neighbour can if the centre is in the half of its cell on that side, and the neighbour is in the grid.
    """
    from_far_side = grid_wh - centre
    before = (centre.frac() < _REACH) & (centre > 1)  # [n, 2] left, above
    after = (from_far_side.frac() < _REACH) & (from_far_side > 1)  # [n, 2] right, below
    own = torch.ones_like(before[:, :1])
    return torch.cat([own, before, after], dim=1).T


def _fits(size: Tensor, anchors: Tensor, limit: float) -> Tensor:
    """Return whether both sides of a box [n, 2] differ by a factor below ``limit`` from an anchor [na, 2]: [na, n]."""
    ratio = size[None] / anchors[:, None]  # [na, n, 2]
    return torch.maximum(ratio, 1 / ratio).amax(dim=2) < limit


def _assign_level(targets: Tensor, grid_hw: tuple[int, int], anchors: Tensor, limit: float) -> Assignment:
    rows, columns = grid_hw
    grid_wh = targets.new_tensor([columns, rows])
    centre, size = targets[:, 2:4] * grid_wh, targets[:, 4:6] * grid_wh  # [n, 2], cells

    candidates = _reachable(centre, grid_wh)[:, None] & _fits(size, anchors, limit)[None]  # [5, na, n]
    # Row-major order (step, anchor, box): the order in which v6.1 lists its matches.
    step, anchor, box = candidates.nonzero(as_tuple=True)

    centre, size = centre[box], size[box]
    cell = (centre + targets.new_tensor(_STEPS)[step] * _REACH).long()
    # A centre on the far border (1.0) would fall off the grid.
    gi, gj = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    offset = centre - torch.stack([gi, gj], dim=1)
    return Assignment(
        image=targets[box, 0].long(),
        anchor=anchor,
        gj=gj,
        gi=gi,
        box=torch.cat([offset, size], dim=1),
        anchor_wh=anchors[anchor],
        cls=targets[box, 1].long(),
    )


def assign_targets(
    targets: Tensor, grid_shapes: Sequence[tuple[int, int]], anchors: Tensor, anchor_t: float
) -> list[Assignment]:
    """Assign every box to cells and anchors of every level, as YOLOv5 v6.1 does.

    A box goes to each anchor whose sides differ from its own by less than a factor ``anchor_t``, in the cell of its
    centre and in up to two neighbours (the nearer one in x, the nearer one in y).

    Args:
        targets: [N, 6] image, class, xywh as fractions of the image.
        grid_shapes: (rows, columns) of each level.
        anchors: [nl, na, 2] widths and heights in cells of their level.
        anchor_t: exclusive limit of the ratio of sides, above 1.

    Returns:
        One assignment per level, ordered by neighbour, anchor, box. Both tensors must be on one device.
    """
    return [
        _assign_level(targets, (int(shape[0]), int(shape[1])), level, anchor_t)
        for shape, level in zip(grid_shapes, anchors, strict=True)
    ]
