"""Suppression inside an ONNX graph against our own, box by box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from utils.config.options import ExportOptions
from utils.core.nms import non_max_suppression
from utils.inference.backends import DetectMultiBackend

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from utils.export.onnx_nms import run_onnx, with_nms  # noqa: E402

CLASSES = 4


def suppressed(candidates: Tensor, opset: int = 12, **options: Any) -> Tensor:
    """What a graph of nothing but suppression gives for candidates [B, N, 9]: [B, k, 6]."""
    graph = f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[b, n, {CLASSES + 5}] images) => (float[b, n, {CLASSES + 5}] output) {{ output = Identity(images) }}"""
    model = with_nms(onnx.parser.parse_model(graph), CLASSES, ExportOptions(include=("onnx",), nms=True, **options))
    onnx.checker.check_model(model, full_check=True)
    return torch.from_numpy(run_onnx(model, candidates)[0])


def crowd(batch: int, number: int) -> Tensor:
    """Boxes of 0 to 80 px that overlap a lot, a few of them too thin."""
    random = torch.rand(batch, number, CLASSES + 5, generator=torch.Generator().manual_seed(0))
    random[..., :2] *= 300
    random[..., 2:4] *= 80
    return random


def test_two_boxes_of_an_object_become_one_and_other_rows_are_zero() -> None:
    one, same, other = [50, 50, 20, 40, 0.9], [52, 50, 20, 40, 0.8], [150, 50, 20, 40, 0.5]
    candidates = torch.tensor([[[*one, 0, 1, 0, 0], [*same, 0, 1, 0, 0], [*other, 0, 0, 0, 1]]])
    found = suppressed(candidates, topk_all=4)[0]
    np.testing.assert_allclose(found[:2], [[40, 30, 60, 70, 0.9, 1], [140, 30, 160, 70, 0.5, 3]], rtol=1e-6)
    assert not found[2:].any()


@pytest.mark.parametrize("opset", [12, 20])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"agnostic_nms": True},
        {"topk_all": 5},
        {"conf_thres": 0.6, "iou_thres": 0.2},
        {"conf_thres": 0.0, "iou_thres": 0.9, "topk_all": 300, "topk_per_class": 300},
    ],
)
@pytest.mark.parametrize("number", [30, 1000])
def test_it_equals_our_own(opset: int, options: dict[str, Any], number: int) -> None:
    candidates, given = crowd(3, number), ExportOptions(**options)
    own = non_max_suppression(
        candidates, given.conf_thres, given.iou_thres, agnostic=given.agnostic_nms, max_det=given.topk_all
    )
    for rows, expected in zip(suppressed(candidates, opset, **options), own, strict=True):
        assert torch.equal(rows[: len(expected)], expected)
        assert not rows[len(expected) :].any()


def test_no_class_has_more_than_its_share() -> None:
    found = suppressed(crowd(2, 500), topk_per_class=3)
    for rows, expected in zip(found, non_max_suppression(crowd(2, 500), max_det=500)):
        best = [expected[expected[:, 5] == kind][:3] for kind in range(CLASSES)]
        assert torch.equal(rows[rows[:, 4] > 0], torch.cat(best)[torch.cat(best)[:, 4].argsort(descending=True)])


@pytest.mark.parametrize("options", [{}, {"half": True}, {"dynamic": True, "simplify": True}, {"opset": 17}])
def test_a_file_with_suppression_inside_is_made_and_proved(
    exported: Callable[..., list[Any]], options: dict[str, Any]
) -> None:
    row = exported("dynamic", include=("onnx",), nms=True, topk_all=20, topk_per_class=5, **options)[1]
    assert row.made, row.note


def test_detect_finds_the_same_by_such_a_file(exported: Callable[..., list[Any]], tiny: Callable[[str], Path]) -> None:
    row = exported("static", include=("onnx",), nms=True, topk_all=300, topk_per_class=300)[1]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = non_max_suppression(DetectMultiBackend(tiny("static"))(images))
        found = non_max_suppression(DetectMultiBackend(row.path)(images))
    for one, other in zip(expected, found, strict=True):
        assert len(one) > 0
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-2)
