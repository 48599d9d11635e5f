"""Average precision and fitness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from utils.metrics import compute_ap, fitness
from utils.metrics.ap import ap_per_class


def test_the_area_under_a_perfect_curve_is_nearly_one() -> None:
    # The closing point (recall 1, precision 0) costs half of the last of 100 intervals.
    assert compute_ap([1.0], [1.0])[0] == pytest.approx(1.0, abs=0.006)


def test_the_area_under_a_curve_that_ends_at_half_recall() -> None:
    area, envelope, recall = compute_ap(np.array([0.25, 0.5]), np.array([0.5, 1.0]))
    # Envelope 1 up to recall 0.5, then a straight line down to (1, 0).
    assert area == pytest.approx(0.75)
    assert envelope.tolist() == [1, 1, 1, 0]
    assert recall.tolist() == [0, 0.25, 0.5, 1]


def test_perfect_detections_have_precision_recall_and_counts_to_match() -> None:
    result = ap_per_class(np.ones((2, 10), bool), np.array([0.9, 0.8]), np.array([0, 2]), np.array([0, 2]))
    assert result.classes.tolist() == [0, 2]
    assert result.p.tolist() == result.r.tolist() == [1, 1]
    assert result.tp.tolist() == [1, 1] and result.fp.tolist() == [0, 0]
    assert result.means()[2:] == pytest.approx((0.995, 0.995))


def test_the_order_of_the_detections_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    tp, conf, kind = rng.random((50, 10)) < 0.5, rng.permutation(50) / 50, rng.integers(0, 3, 50)
    mixed = rng.permutation(50)
    targets = rng.integers(0, 3, 40)
    first, second = ap_per_class(tp, conf, kind, targets), ap_per_class(tp[mixed], conf[mixed], kind[mixed], targets)
    assert first.ap.tolist() == second.ap.tolist()


def test_classes_with_labels_but_no_detections_score_zero() -> None:
    result = ap_per_class(np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.array([1, 1, 4]))
    assert result.classes.tolist() == [1, 4]
    assert result.ap.tolist() == [[0] * 10] * 2
    assert result.means() == (0, 0, 0, 0)
    assert result.tp.tolist() == result.fp.tolist() == [0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("detections", [0, 3])
def test_without_labels_the_result_is_empty(detections: int) -> None:
    result = ap_per_class(np.zeros((detections, 10), bool), np.zeros(detections), np.zeros(detections), np.zeros(0))
    assert result.ap.shape == (0, 10) and result.p.shape == (0,) and result.f1_curve.shape == (0, 1000)
    assert result.means() == (0, 0, 0, 0)


def test_fitness_weighs_map_nine_to_one() -> None:
    assert fitness(np.array([0.3, 0.3, 0.5, 0.4])) == pytest.approx(0.41)


def test_average_precision_equals_the_reference(golden: Any) -> None:
    result = ap_per_class(*(golden.array(f"ap/{name}") for name in ("tp", "conf", "pred_cls", "target_cls")))
    for name in ("tp", "fp", "p", "r", "f1", "ap", "classes"):
        got, expected = getattr(result, name), golden.array(f"ap/out_{name}")
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12, err_msg=name)
    facts = golden.json("tensors")["ap"]
    assert result.means() == pytest.approx((facts["P"], facts["R"], facts["mAP50"], facts["mAP"]), rel=1e-9)


def test_the_area_under_one_curve_equals_the_reference(golden: Any) -> None:
    area, _, _ = compute_ap(golden.array("ap/one_recall"), golden.array("ap/one_precision"))
    assert area == pytest.approx(golden.json("tensors")["ap"]["compute_ap_one_curve"], rel=1e-12)


def test_fitness_equals_the_reference(golden: Any) -> None:
    np.testing.assert_allclose(fitness(golden.array("fitness/input")), golden.array("fitness/output"), rtol=1e-12)
