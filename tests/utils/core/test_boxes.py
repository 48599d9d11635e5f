"""Box formats, mapping between images and overlaps, by hand and against the reference's figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from utils.core import boxes as B

KINDS = [lambda values: torch.tensor(values), lambda values: np.array(values, dtype=np.float32)]


@pytest.mark.parametrize("kind", KINDS, ids=["tensor", "ndarray"])
def test_corners_become_centre_and_size_and_back(kind: Any) -> None:
    corners = kind([[10.0, 20.0, 30.0, 60.0]])
    centred = B.xyxy2xywh(corners)
    assert type(centred) is type(corners)
    assert centred.tolist() == [[20, 40, 20, 40]]
    assert B.xywh2xyxy(centred).tolist() == corners.tolist()


@pytest.mark.parametrize("kind", KINDS, ids=["tensor", "ndarray"])
def test_conversions_pass_further_columns_through_and_keep_the_input(kind: Any) -> None:
    rows = kind([[0.0, 0.0, 2.0, 4.0, 0.5, 7.0]])
    assert B.xyxy2xywh(rows).tolist() == [[1, 2, 2, 4, 0.5, 7]]
    assert B.clip_coords(rows, (3, 1)).tolist() == [[0, 0, 1, 3, 0.5, 7]]
    assert rows.tolist() == [[0, 0, 2, 4, 0.5, 7]]


@pytest.mark.parametrize("kind", KINDS, ids=["tensor", "ndarray"])
def test_conversions_accept_no_boxes_and_a_single_box(kind: Any) -> None:
    assert tuple(B.xywh2xyxy(kind([[0.0] * 4])[:0]).shape) == (0, 4)
    assert B.xywh2xyxy(kind([2.0, 2.0, 2.0, 2.0])).tolist() == [1, 1, 3, 3]


def test_fractions_become_pixels_on_a_padded_canvas() -> None:
    assert B.xywhn2xyxy(torch.tensor([[0.5, 0.5, 0.5, 0.25]]), 100, 200, 10, 20).tolist() == [[35, 95, 85, 145]]


def test_pixels_become_fractions_after_clipping_to_the_image() -> None:
    boxes = torch.tensor([[-50.0, 0.0, 50.0, 300.0]])
    assert B.xyxy2xywhn(boxes, 100, 200, clip=True).tolist() == [[0.25, 0.5, 0.5, 1.0]]
    assert B.xyxy2xywhn(boxes, 100, 200).tolist() == [[0.0, 0.75, 1.0, 1.5]]


def test_the_box_of_a_polygon_ignores_points_outside_the_image() -> None:
    points = np.array([[-5.0, 3.0], [2.0, 4.0], [8.0, 1.0], [5.0, 99.0]])
    assert B.segment2box(points, 10, 10).tolist() == [2, 1, 8, 4]
    assert B.segment2box(points + 1000, 10, 10).tolist() == [0, 0, 0, 0]


def test_no_polygons_give_no_boxes() -> None:
    assert B.segments2boxes([]).shape == (0, 4)


def test_resampling_keeps_the_ends_of_a_polygon_and_its_vertices() -> None:
    line = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 4.0]])
    assert B.resample_segments([line], 5)[0].tolist() == [[0, 0], [5, 0], [10, 0], [10, 2], [10, 4]]


def test_scaling_back_uses_each_axis_own_ratio_and_pad() -> None:
    boxes = torch.tensor([[12.0, 24.0, 32.0, 64.0]])
    assert B.scale_coords((100, 100), boxes, (30, 30), ((2.0, 4.0), (2.0, 4.0))).tolist() == [[5, 5, 15, 15]]


def test_scaling_back_without_a_ratio_assumes_a_centred_letterbox() -> None:
    # 100 x 50 (w x h) onto 200 x 200: twice the size, 50 pixels above and below.
    assert B.scale_coords((200, 200), torch.tensor([[20.0, 70.0, 40.0, 90.0]]), (50, 100, 3)).tolist() == [
        [10, 10, 20, 20]
    ]


def test_iou_of_half_overlapping_squares_is_a_third() -> None:
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    assert B.box_iou(a, b)[0].tolist() == pytest.approx([1 / 3, 0])
    assert B.box_iou(a.numpy(), b.numpy())[0].tolist() == pytest.approx([1 / 3, 0])
    assert B.bbox_iou(a[0], b).tolist() == pytest.approx([1 / 3, 0])


def test_relatives_of_iou_follow_their_formulas() -> None:
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[4.0, 0.0, 6.0, 2.0]])
    assert B.bbox_iou(a, b, GIoU=True).item() == pytest.approx(-4 / 12, abs=1e-6)  # hull 6 x 2, 4 of it covered by none
    assert B.bbox_iou(a, b, DIoU=True).item() == pytest.approx(-16 / 40, abs=1e-6)  # 4 apart, diagonal 36 + 4
    assert B.bbox_iou(a, b, CIoU=True).item() == pytest.approx(-16 / 40, abs=1e-6)  # same proportions: no further term


def test_intersection_is_taken_over_the_second_boxes_area() -> None:
    box, others = np.array([0.0, 0.0, 4.0, 4.0]), np.array([[2.0, 2.0, 6.0, 6.0], [1.0, 1.0, 2.0, 2.0]])
    assert B.bbox_ioa(box, others).tolist() == pytest.approx([0.25, 1.0], abs=1e-6)


def test_iou_of_sizes_ignores_position() -> None:
    assert B.wh_iou(torch.tensor([[2.0, 4.0]]), torch.tensor([[4.0, 2.0], [2.0, 4.0]])).tolist() == [
        pytest.approx([4 / 12, 1.0])
    ]


def test_ciou_has_a_finite_gradient_for_boxes_without_area() -> None:
    a = torch.zeros(1, 4, requires_grad=True)
    B.bbox_iou(a, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), x1y1x2y2=False, CIoU=True).sum().backward()
    assert a.grad is not None and torch.isfinite(a.grad).all()


def test_conversions_equal_the_reference(golden: Any) -> None:
    pixels, corners = golden.array("coords/pixels"), golden.array("coords/boxes_xyxy")
    fractions = golden.array("coords/boxes_n4")
    for name, got in {
        "xyxy2xywh": B.xyxy2xywh(pixels),
        "xywh2xyxy": B.xywh2xyxy(pixels),
        "xywhn2xyxy_w640_h480_pad10_20": B.xywhn2xyxy(fractions, 640, 480, 10, 20),
        "xyxy2xywhn_w640_h480": B.xyxy2xywhn(corners, 640, 480),
        "xyxy2xywhn_w640_h480_clip_eps1e-3": B.xyxy2xywhn(corners, 640, 480, clip=True, eps=1e-3),
        "xyn2xy_w640_h480_pad10_20": B.xyn2xy(golden.array("coords/segment_n"), 640, 480, 10, 20),
        "segment2box_640x480": B.segment2box(golden.array("coords/segment_pixels"), 640, 480),
        "segments2boxes": B.segments2boxes([golden.array("coords/segment_n"), golden.array("coords/segment2_n")]),
        "resample_segment_n20": B.resample_segments([golden.array("coords/segment_n")], 20)[0],
    }.items():
        np.testing.assert_allclose(got, golden.array(f"coords/{name}"), rtol=1e-6, atol=1e-4, err_msg=name)


def test_scaling_back_equals_the_reference(golden: Any) -> None:
    corners = golden.array("coords/boxes_xyxy")
    for case in golden.json("tensors")["scale_coords"]:
        expected = golden.array(f"coords/scaled_{case['case']}")
        for boxes in (corners, torch.from_numpy(corners)):
            got = B.scale_coords(case["network_hw"], boxes, case["image_hw"], case["ratio_pad"])
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_the_iou_family_equals_the_reference(golden: Any, kind: str) -> None:
    flags = {} if kind == "iou" else {f"{kind[0].upper()}IoU": True}
    first, second = (torch.from_numpy(golden.array(f"iou/boxes{i}_xyxy")) for i in (1, 2))
    centred = B.xyxy2xywh(first), B.xyxy2xywh(second)
    close = {"rtol": 2e-6, "atol": 2e-6}
    np.testing.assert_allclose(B.bbox_iou(first, second, **flags), golden.array(f"iou/pair_{kind}"), **close)
    np.testing.assert_allclose(B.bbox_iou(first[7], second, **flags), golden.array(f"iou/one_to_many_{kind}"), **close)
    got = B.bbox_iou(*centred, x1y1x2y2=False, **flags)
    np.testing.assert_allclose(got, golden.array(f"iou/pair_xywh_{kind}"), rtol=1e-5, atol=1e-5)
    exact = B.bbox_iou(first.double(), second.double(), eps=1e-9, **flags)
    np.testing.assert_allclose(exact, golden.array(f"iou/pair_{kind}_eps1e-9_float64"), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_ciou_equals_the_reference(golden: Any) -> None:
    first, second = (B.xyxy2xywh(torch.from_numpy(golden.array(f"iou/boxes{i}_xyxy")[7:])) for i in (1, 2))
    expected = golden.array("iou/grad_sum_1_minus_ciou_wrt_boxes1_xywh_from7")
    first = first.requires_grad_()
    (1 - B.bbox_iou(first, second, x1y1x2y2=False, CIoU=True)).sum().backward()
    assert first.grad is not None
    np.testing.assert_allclose(first.grad, expected[7:], rtol=1e-4, atol=1e-6)


def test_overlap_matrices_equal_the_reference(golden: Any) -> None:
    first, second = (golden.array(f"iou/boxes{i}_xyxy") for i in (1, 2))
    for kind in (np.asarray, torch.from_numpy):
        np.testing.assert_allclose(B.box_iou(kind(first), kind(second)), golden.array("iou/matrix"), rtol=1e-6)
        ioa = B.bbox_ioa(kind(first)[7], kind(second))
        np.testing.assert_allclose(ioa, golden.array("iou/ioa_first_vs_all"), rtol=1e-6)
        wh = B.wh_iou(kind(first)[7:, 2:], kind(second)[7:, 2:])
        np.testing.assert_allclose(wh, golden.array("iou/wh_matrix"), rtol=1e-5)
