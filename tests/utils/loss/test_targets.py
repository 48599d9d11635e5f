"""Assignment of boxes to cells and anchors, worked by hand first, then against the reference's matches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from utils.loss.targets import Assignment, assign_targets

ONE_ANCHOR = torch.tensor([[[2.0, 2.0]]])


def box(x: float, y: float, w: float = 2.0, h: float = 2.0, cls: int = 0, image: int = 0, grid: int = 8) -> Tensor:
    """A target row given in cells of a square grid."""
    return torch.tensor([[image, cls, x / grid, y / grid, w / grid, h / grid]])


def cells(found: Assignment) -> set[tuple[int, int]]:
    """(column, row) of every match."""
    return set(zip(found.gi.tolist(), found.gj.tolist()))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (3.25, 3.25, {(3, 3), (2, 3), (3, 2)}),
        (3.75, 3.75, {(3, 3), (4, 3), (3, 4)}),
        (3.25, 3.75, {(3, 3), (2, 3), (3, 4)}),
        (3.5, 3.5, {(3, 3)}),
        (0.25, 0.25, {(0, 0)}),
        (7.75, 7.75, {(7, 7)}),
    ],
)
def test_a_box_goes_to_its_cell_and_the_nearer_neighbours_on_the_grid(
    x: float, y: float, expected: set[tuple[int, int]]
) -> None:
    (found,) = assign_targets(box(x, y), [(8, 8)], ONE_ANCHOR, 4.0)
    assert cells(found) == expected


def test_offsets_are_from_the_corner_of_the_matched_cell_and_sizes_in_cells() -> None:
    (found,) = assign_targets(box(3.25, 3.5, 3, 1), [(8, 8)], ONE_ANCHOR, 4.0)
    by_cell = {(int(i), int(j)): row for i, j, row in zip(found.gi, found.gj, found.box)}
    torch.testing.assert_close(by_cell[3, 3], torch.tensor([0.25, 0.5, 3, 1]))
    torch.testing.assert_close(by_cell[2, 3], torch.tensor([1.25, 0.5, 3, 1]))


def test_the_limit_of_the_side_ratio_is_exclusive_both_ways() -> None:
    for side, count in ((8.0, 0), (7.9, 1), (0.5, 0), (0.51, 1)):
        (found,) = assign_targets(box(3.5, 3.5, side, 2), [(8, 8)], ONE_ANCHOR, 4.0)
        assert len(found) == count, side


def test_a_box_may_match_several_anchors_and_levels() -> None:
    anchors = torch.tensor([[[2.0, 2.0], [1.0, 1.0]], [[1.0, 1.0], [9.0, 9.0]]])
    fine, coarse = assign_targets(box(3.5, 3.5, cls=4, image=1), [(8, 8), (4, 4)], anchors, 4.0)
    assert fine.anchor.tolist() == [0, 1]
    assert fine.anchor_wh.tolist() == [[2, 2], [1, 1]]
    # 3.5 of 8 cells is 1.75 of 4.
    assert coarse.anchor.tolist() == [0, 0, 0]
    assert cells(coarse) == {(1, 1), (2, 1), (1, 2)}
    assert set(fine.cls.tolist()) == {4}
    assert set(fine.image.tolist()) == {1}


def test_rows_and_columns_are_not_mixed_up_on_an_oblong_grid() -> None:
    target = torch.tensor([[0, 0, 0.9, 0.5, 2 / 12, 2 / 4]])
    (found,) = assign_targets(target, [(4, 12)], ONE_ANCHOR, 4.0)
    assert (10, 2) in cells(found)
    assert found.gi.max() < 12
    assert found.gj.max() < 4


def test_centres_on_the_far_border_stay_on_the_grid() -> None:
    (found,) = assign_targets(box(8, 8), [(8, 8)], ONE_ANCHOR, 4.0)
    assert (7, 7) in cells(found)
    assert found.gi.max() == 7
    assert found.gj.max() == 7
    assert found.gi.dtype == found.gj.dtype == torch.int64


def test_boxes_without_width_or_height_match_nothing() -> None:
    (found,) = assign_targets(torch.cat([box(3, 3, 0, 2), box(3, 3, 2, 0)]), [(8, 8)], ONE_ANCHOR, 4.0)
    assert len(found) == 0


def test_no_targets_give_empty_assignments_of_the_right_shapes() -> None:
    (found,) = assign_targets(torch.zeros(0, 6), [(8, 8)], ONE_ANCHOR, 4.0)
    assert found.box.shape == (0, 4)
    assert found.anchor_wh.shape == (0, 2)
    assert found.image.dtype == torch.int64


def as_rows(identity: Any, *columns: Any) -> list[tuple[float, ...]]:
    """All matches as sorted tuples, so that their order does not matter."""
    table = torch.cat([torch.as_tensor(c).double().reshape(len(identity), -1) for c in (identity, *columns)], dim=1)
    return sorted(tuple(round(value, 4) for value in row) for row in table.tolist())


@pytest.mark.parametrize(
    ("case", "targets", "limit"),
    [
        ("targets_anchor_t4", "targets", 4.0),
        ("targets_anchor_t2", "targets", 2.0),
        ("edge_anchor_t4", "targets_edge", 4.0),
    ],
)
def test_matches_are_those_of_the_reference(golden: Any, case: str, targets: str, limit: float) -> None:
    anchors = torch.tensor(golden.json("tensors")["build_targets"]["anchors_in_grid_units"])
    rows = torch.from_numpy(golden.array(f"loss/{targets}"))
    for level, found in enumerate(assign_targets(rows, [(16, 16), (8, 8), (4, 4)], anchors, limit)):
        prefix = f"build_targets/{case}_layer{level}_"
        names = ("image_anchor_gj_gi", "tbox", "anchors", "tcls")
        identity = torch.stack([found.image, found.anchor, found.gj, found.gi], dim=1)
        assert as_rows(identity, found.box, found.anchor_wh, found.cls) == as_rows(
            *(golden.array(prefix + name) for name in names)
        )
