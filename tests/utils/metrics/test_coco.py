"""COCO's twelve figures."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest

from utils.metrics.coco import COCO_METRICS, coco_tool, compute_coco_metrics

TOOLS = ("pycocotools", "faster-coco-eval")


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param.replace("-", "_"))
    return str(request.param)


def truth(*rows: list[float]) -> np.ndarray:
    return np.array([[*row, row[4] * row[5], 0] for row in rows], float).reshape(-1, 8)


def test_a_perfect_detector_has_one_everywhere_but_in_sizes_without_objects(tool: str) -> None:
    known = truth([0, 0, 10, 10, 20, 20], [1, 1, 0, 0, 50, 50])  # one small, one medium
    found = np.array([[0, 0, 10, 10, 20, 20, 0.9], [1, 1, 0, 0, 50, 50, 0.8]])
    figures = compute_coco_metrics(known, found, 2, 2, tool).by_name()
    assert [name for name, value in figures.items() if math.isnan(value)] == ["APl", "ARl"]
    assert [value for value in figures.values() if not math.isnan(value)] == pytest.approx([1.0] * 10)


def test_half_of_the_objects_found_is_a_recall_of_half(tool: str) -> None:
    known = truth([0, 0, 0, 0, 20, 20], [0, 0, 50, 50, 20, 20])
    figures = compute_coco_metrics(known, np.array([[0, 0, 0, 0, 20, 20, 0.9]]), 1, 1, tool).by_name()
    assert figures["AR100"] == pytest.approx(0.5)
    assert figures["AP50"] == pytest.approx(51 / 101)  # precision 1 at recall 0, 0.01, ..., 0.50


def test_a_detection_in_a_crowd_region_is_no_mistake(tool: str) -> None:
    known = truth([0, 0, 0, 0, 20, 20], [0, 0, 40, 40, 60, 60])
    known[1, 7] = 1
    found = np.array([[0, 0, 50, 50, 30, 30, 0.9], [0, 0, 0, 0, 20, 20, 0.5]])
    assert compute_coco_metrics(known, found, 1, 1, tool).by_name()["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [0, 1])
def test_without_detections_there_is_zero_and_without_labels_nothing(tool: str, labels: int) -> None:
    known = truth(*[[0, 0, 0, 0, 20, 20]] * labels)
    figures = compute_coco_metrics(known, np.zeros((0, 7)), 1, 1, tool).by_name()
    assert figures["AP"] == 0.0 if labels else math.isnan(figures["AP"])


@pytest.mark.parametrize("seed", range(3))
def test_the_fast_evaluator_agrees_with_the_reference(seed: int) -> None:
    for name in TOOLS:
        pytest.importorskip(name.replace("-", "_"))
    rng = np.random.default_rng(seed)
    known = np.zeros((200, 8))
    known[:, 0], known[:, 1] = rng.integers(0, 20, 200), rng.integers(0, 5, 200)
    known[:, 2:4], known[:, 4:6] = rng.random((200, 2)) * 400, rng.random((200, 2)) ** 2 * 250 + 4
    known[:, 6], known[:, 7] = known[:, 4] * known[:, 5] * rng.uniform(0.5, 1, 200), rng.random(200) < 0.05
    which = rng.integers(0, 200, 3000)
    found = np.concatenate([known[which, :6], rng.random((3000, 1)).round(2)], 1)  # many equal confidences
    found[:, 2:6] *= rng.normal(1, 0.1, (3000, 4))
    found[:, 1] = np.where(rng.random(3000) < 0.1, rng.integers(0, 5, 3000), found[:, 1])
    slow, fast = (compute_coco_metrics(known, found, 20, 5, name) for name in TOOLS)
    assert (slow.tool, fast.tool) == TOOLS
    assert min(slow.values) > 0 and len(slow.values) == len(COCO_METRICS)
    np.testing.assert_allclose(fast.values, slow.values, rtol=0, atol=1e-6)


def test_nothing_is_printed(tool: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        compute_coco_metrics(truth([0, 0, 0, 0, 9, 9]), np.zeros((0, 7)), 1, 1, tool)
    assert capfd.readouterr() == ("", "") and caplog.text == ""


@pytest.mark.parametrize(
    ("missing", "expected"), [((), TOOLS[1]), (("faster_coco_eval",), TOOLS[0]), (("faster_coco_eval", "pycoco"), None)]
)
def test_the_fast_evaluator_comes_first(
    missing: tuple[str, ...], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TOOLS:
        pytest.importorskip(name.replace("-", "_"))
    original = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith(missing):
            raise ImportError(name)
        return original(name, *rest, **more)

    if missing:
        monkeypatch.setattr(builtins, "__import__", without)
    assert coco_tool() == expected
