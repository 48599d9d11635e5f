"""Fit of anchors to boxes, by hand and against the reference's figures on two data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from utils.datasets.anchors import anchor_fitness, box_sizes, check_anchors, jitter_sizes, kmean_anchors

P5 = np.array(
    [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]], np.float32
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_fitness_is_worked_by_hand() -> None:
    # Closeness to (10, 10) and (40, 40): 1/2 and 1/2; 1 and 1/4 (not above 1/4); 1/10 and 1/40.
    fit = anchor_fitness(np.array([[20, 20], [10, 10], [1, 1]], np.float32), np.array([[10, 10], [40, 40.0]]), 4.0)
    assert fit.bpr == pytest.approx(2 / 3)
    assert fit.aat == pytest.approx(3 / 3)
    assert fit.fitness == pytest.approx((0.5 + 1 + 0) / 3)


def test_a_box_without_width_is_out_of_reach() -> None:
    assert anchor_fitness(np.array([[0, 10]], np.float32), P5, 4.0).bpr == 0


def test_sizes_are_scaled_with_the_longer_side() -> None:
    labels = [np.array([[0, 0.5, 0.5, 0.5, 0.25]]), np.zeros((0, 5)), np.array([[1, 0.5, 0.5, 1, 1]])]
    wh, owner = box_sizes([(100, 200), (50, 50), (400, 100)], labels, 640)
    np.testing.assert_allclose(wh, [[320, 80], [160, 640]])
    assert owner.tolist() == [0, 2]


def test_clusters_are_found_and_ordered_by_area() -> None:
    centres = np.array([[20, 10], [50, 90], [200, 200]], np.float32)
    wh = np.repeat(centres, 40, axis=0) * rng().uniform(0.97, 1.03, (120, 2)).astype(np.float32)
    found = kmean_anchors(wh, 3, 4.0, 100, rng())
    np.testing.assert_allclose(found, centres, rtol=0.06)


def test_fitted_anchors_depend_on_the_generator_alone() -> None:
    wh = rng(3).uniform(5, 300, (200, 2)).astype(np.float32)
    np.testing.assert_array_equal(kmean_anchors(wh, 9, 4.0, 50, rng(1)), kmean_anchors(wh, 9, 4.0, 50, rng(1)))


def test_refinement_never_makes_the_fit_worse() -> None:
    wh = rng(3).uniform(5, 300, (200, 2)).astype(np.float32)
    plain, refined = (anchor_fitness(wh, kmean_anchors(wh, 9, 4.0, gen, rng(1)), 4.0).fitness for gen in (0, 300))
    assert refined > plain


def test_too_few_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="9 different box sizes, got 1"):
        kmean_anchors(np.full((20, 2), 30, np.float32), 9, 4.0, 10, rng())


def test_fitting_anchors_keep() -> None:
    check = check_anchors(P5.reshape(-1, 2), P5, 4.0, 640, rng())
    assert check.anchors is None
    assert check.bpr == 1
    assert "fit the boxes" in check.message


@pytest.mark.parametrize(("count", "side"), [(1, 600), (20, 600), (20, 0.5)])
def test_a_set_too_small_to_fit_keeps_the_given_anchors_and_says_so(count: int, side: float) -> None:
    anchors = P5 / 100 if side > 1 else P5
    check = check_anchors(np.full((count, 2), side, np.float32), anchors, 4.0, 640, rng())
    assert check.anchors is None
    assert "are not enough to fit" in check.message


def test_a_set_without_boxes_keeps_the_given_anchors() -> None:
    assert check_anchors(np.zeros((0, 2), np.float32), P5, 4.0, 640, rng()).anchors is None


@pytest.mark.filterwarnings("error")
def test_sizes_that_are_no_numbers_are_left_out() -> None:
    wh = rng(3).uniform(300, 600, (200, 2)).astype(np.float32)
    broken = np.concatenate([wh, [[np.nan, 9], [9, np.inf]]]).astype(np.float32)
    owner = np.arange(len(broken)) // 2
    check = check_anchors(broken, P5 / 10, 4.0, 640, rng(), owner, gen=20)
    alone = check_anchors(wh, P5 / 10, 4.0, 640, rng(), owner[:200], gen=20)
    assert check.anchors is not None and alone.anchors is not None
    np.testing.assert_array_equal(check.anchors, alone.anchors)
    nothing = check_anchors(broken[200:], P5, 4.0, 640, rng())
    assert nothing.anchors is None and "no boxes" in nothing.message


@pytest.mark.filterwarnings("error")
def test_a_fit_without_a_result_keeps_the_given_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.datasets.anchors.kmean_anchors", lambda *_: np.full((9, 2), np.nan, np.float32))
    wh = rng(3).uniform(300, 600, (200, 2)).astype(np.float32)
    check = check_anchors(wh, P5 / 10, 4.0, 640, rng())
    assert check.anchors is None and "came to no result; keeping those of the model" in check.message


@pytest.mark.filterwarnings("error")
def test_placeholders_of_size_0_are_replaced() -> None:
    wh = rng(3).uniform(300, 600, (200, 2)).astype(np.float32)
    check = check_anchors(wh, P5 * 0, 4.0, 640, rng(), gen=20)
    assert check.bpr == 0 and check.anchors is not None


def test_badly_fitting_anchors_are_replaced_in_the_same_shape() -> None:
    wh = rng(3).uniform(300, 600, (200, 2)).astype(np.float32)
    check = check_anchors(wh, P5 / 10, 4.0, 640, rng(), gen=50)
    assert check.anchors is not None
    assert check.anchors.shape == P5.shape
    assert anchor_fitness(wh, check.anchors, 4.0).bpr > check.bpr
    areas = check.anchors.reshape(-1, 2).prod(1)
    assert (np.diff(areas) >= 0).all()


def test_anchors_that_cannot_be_bettered_are_kept() -> None:
    # 27 boxes so far from one another that nine anchors reach a third of them, which the given ones do already.
    wh = np.stack([3 * 2.0 ** np.arange(27)] * 2, axis=1)
    check = check_anchors(wh, wh[::3].reshape(3, 3, 2), 1.5, 640, rng(), gen=5)
    assert check.anchors is None
    assert check.bpr == pytest.approx(1 / 3)


@pytest.mark.parametrize("case", range(4))
def test_figures_on_real_boxes_are_those_of_the_reference(golden: Any, case: int) -> None:
    expected = golden.json("tensors")["anchors"][case]
    wh, owner = box_sizes(*golden.labels(expected["data"]), expected["imgsz"])
    assert len(wh) == expected["labels"]
    fit, strict = anchor_fitness(wh, P5, 4.0), anchor_fitness(wh, P5, 2.0)
    assert (fit.bpr, fit.aat) == pytest.approx(tuple(expected["no_jitter"].values()), rel=1e-6)
    assert (strict.bpr, strict.aat) == pytest.approx((expected["bpr_thr2"], expected["aat_thr2"]), rel=1e-6)
    assert fit.fitness == pytest.approx(expected["kmeans_fitness"], rel=1e-5)

    legacy: Any = np.random.RandomState(0)  # the generator behind the stored figure
    jittered = anchor_fitness(jitter_sizes(wh, owner, legacy), P5, 4.0)
    assert (jittered.bpr, jittered.aat) == pytest.approx(tuple(expected["jitter_np_seed0"].values()), rel=1e-6)


def test_boxes_of_one_image_are_jittered_alike() -> None:
    factors = jitter_sizes(np.ones((4, 2), np.float32), np.array([0, 0, 2, 2]), rng())
    assert factors[0, 0] == factors[0, 1] == factors[1, 0]
    assert factors[2, 0] == factors[3, 1] != factors[0, 0]
    assert ((factors > 0.9) & (factors < 1.1)).all()
