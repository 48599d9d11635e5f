"""The ranges of the hyper-parameters and the rule of mutation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from utils.config.hyp import Hyp
from utils.training.evolve_space import NAMED_GENES, V61_GENES, Gene, SearchSpace


class Fixed:
    """A generator that draws what it is told."""

    def __init__(self, uniform: list[Any], normal: float, parent: int = 0) -> None:
        self.uniform, self.normal, self.parent = uniform, normal, parent
        self.weights = np.zeros(0)

    def choice(self, count: int, p: np.ndarray) -> int:
        self.weights = p
        return self.parent

    def random(self, count: int | None = None) -> Any:
        value = self.uniform.pop(0)
        return value if count is None else np.full(count, value)

    def standard_normal(self, count: int) -> np.ndarray:
        return np.full(count, self.normal)


def space(hyp: Hyp | None = None, named: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> SearchSpace:
    return SearchSpace.around(hyp or Hyp(), named, without)


def test_the_searched_hyper_parameters_are_those_of_v61(golden: Any) -> None:
    low = golden.json("hyps_v6.1")["hyp.scratch-low.yaml"]
    assert list(V61_GENES) == list(low)
    assert list(space().genes) == list(low)
    fixed = {"iou_t", "fl_gamma", "perspective", "fliplr"}
    assert set(space().searched) == set(low) - fixed


@pytest.mark.parametrize("name", [*V61_GENES, *NAMED_GENES])
def test_both_ends_of_every_range_can_be_trained_with(name: str) -> None:
    gene = (V61_GENES | NAMED_GENES)[name]
    for value in (gene.low, gene.high):
        assert getattr(Hyp.from_dict({name: value}), name) == value


def test_a_value_is_multiplied_by_one_plus_gain_times_sigma_times_the_draws() -> None:
    start = space(replace(Hyp(), lr0=0.01, momentum=0.8, mixup=0.0))
    rng = Fixed([0.5, 0.5], normal=1.0)  # 0.5 is below 0.8: every value changes; then the uniform factor
    child = start.mutate([start.start_values()], [0.3], rng)  # type: ignore[arg-type]
    assert child["lr0"] == pytest.approx(0.01 * (1 + 1 * 0.2 * 1.0 * 0.5))
    assert child["momentum"] == pytest.approx(0.8 * (1 + 0.3 * 0.2 * 1.0 * 0.5))
    assert child["mixup"] == 0.0  # what is off stays off


def test_factors_and_results_are_kept_in_their_bounds() -> None:
    start = space(replace(Hyp(), box=0.1, degrees=1.0))
    up = start.mutate([start.start_values()], [0.0], Fixed([0.5, 1.0], normal=50.0))  # type: ignore[arg-type]
    down = start.mutate([start.start_values()], [0.0], Fixed([0.5, 1.0], normal=-50.0))  # type: ignore[arg-type]
    assert (up["degrees"], down["degrees"]) == (3.0, 0.3)
    assert (up["box"], down["box"]) == (0.2, 0.03)  # 0.3 is above the range


def test_at_least_one_value_is_chosen_for_change() -> None:
    start = space()
    rng = Fixed([0.9, 0.9, 0.1, 0.5], normal=1.0)  # nothing is below 0.8 in the first two draws
    assert start.mutate([start.start_values()], [0.0], rng)["lr0"] != 0.01  # type: ignore[arg-type]


def test_the_parent_is_drawn_among_the_five_best_by_fitness() -> None:
    start = space()
    parents = [start.start_values() | {"lr0": 0.01 * (i + 1)} for i in range(6)]
    fitnesses = [0.3, 0.1, 0.2, 0.5, 0.0, 0.4]
    rng = Fixed([0.1, 0.0], normal=1.0, parent=1)  # of the five best in order: 0.5, 0.4, 0.3, 0.2, 0.1
    child = start.mutate(parents, fitnesses, rng)  # type: ignore[arg-type]
    assert child["lr0"] == pytest.approx(0.06)
    assert rng.weights == pytest.approx(np.array([0.4, 0.3, 0.2, 0.1, 0.0]), abs=1e-5)


def test_values_are_rounded_to_five_digits() -> None:
    assert Gene(1, 0.0, 1.0).clip(0.123456789) == 0.12346


def test_the_start_is_moved_into_the_ranges() -> None:
    assert space(replace(Hyp(), degrees=90.0, lr0=0.0)).start == replace(Hyp(), degrees=45.0, lr0=1e-5)


def test_anchors_and_our_own_are_searched_only_when_the_file_names_them() -> None:
    assert "anchors" not in space().genes
    assert "anchors" not in space(named=("anchors",)).genes  # named, but null
    assert list(space(replace(Hyp(), anchors=3.0), ("anchors",)).searched)[-1] == "anchors"
    assert "cutout" in space(named=("cutout",)).searched


def test_what_an_option_fixes_is_left_out() -> None:
    assert "anchors" not in space(replace(Hyp(), anchors=3.0), ("anchors",), without=("anchors",)).genes


def test_the_temperature_cannot_be_made_to_start_below_its_end() -> None:
    hyp = replace(Hyp(), temperature_start=20.0, temperature_end=5.0)
    found = space(hyp, ("temperature_start",))
    assert found.searched["temperature_start"].low == 5.0
    assert found.hyp({"temperature_start": 5.0}).temperature_start == 5.0
