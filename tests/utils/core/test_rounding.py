"""How far computations may be apart for rounding alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from utils.core.rounding import DifferenceNorms, compare_outputs, differences, tolerance


def one(values: list[float]) -> list[tuple[str, Tensor]]:
    return [("scores", torch.tensor(values))]


def compare(expected: list[float], found: list[float], exact: list[float]) -> str:
    return compare_outputs(one(expected), one(found), lambda: differences(one(expected), one(exact)), 1e-4, 5e-2).fault


@pytest.mark.parametrize(
    ("own", "limit"), [(0.0, 1e-4), (1e-5, 1e-4), (1e-3, 1e-2), (0.1, 5e-2), (math.nan, 1e-4), (math.inf, 5e-2)]
)
def test_the_limit_is_a_multiple_of_the_models_own_rounding_between_floor_and_cap(own: float, limit: float) -> None:
    assert tolerance(own, 1e-4, 5e-2) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("expected", "found", "exact", "fault"),
    [
        ([0.5, 0.1], [0.50001, 0.1], [9.0, 9.0], ""),  # below the floor
        ([0.5, 0.1], [0.503, 0.1], [0.501, 0.1], ""),
        ([0.5, 0.1], [0.52, 0.1], [0.501, 0.1], "by 0.02 in its scores, allowed is 0.01"),
        ([0.5, 0.1], [0.7, 0.1], [0.6, 0.1], "by 0.2 in its scores, allowed is 0.05"),  # no such rounding
        ([0.5, 0.1], [0.501, 0.1002], [0.5003, 0.1], ""),
        ([0.5, 0.1], [math.nan, 0.1], [0.5, 0.1], "by nan in its scores, allowed is 0.0001"),
        ([0.5, 0.1], [math.inf, 0.1], [0.5, 0.1], "by inf in its scores, allowed is 0.0001"),
    ],
)
def test_a_difference_is_measured_by_what_float32_is_off(
    expected: list[float], found: list[float], exact: list[float], fault: str
) -> None:
    assert compare(expected, found, exact) == fault


def test_many_small_differences_are_no_rounding_of_few_values() -> None:
    expected = [0.5] * 100
    assert compare(expected, [0.505] * 100, [0.502, *expected[1:]]) == (
        "by 0.005 in the mean of its scores, allowed is 0.001"
    )


def test_float64_is_not_run_for_differences_that_every_model_may_have() -> None:
    def never() -> list[DifferenceNorms]:
        raise AssertionError

    assert compare_outputs(one([0.5]), one([0.500005]), never, 1e-4, 5e-2).limit == 1e-4


def test_the_figure_told_is_that_closest_to_its_limit() -> None:
    expected = [("boxes", torch.zeros(4)), ("scores", torch.zeros(4))]
    found = [("boxes", torch.full((4,), 2e-3)), ("scores", torch.full((4,), 1e-3))]
    exact = [("boxes", torch.full((4,), 1e-3)), ("scores", torch.full((4,), 4e-4))]
    told = compare_outputs(expected, found, lambda: differences(expected, exact), 1e-4, 5e-2)
    assert (told.worst, told.limit, told.fault) == (pytest.approx(1e-3), pytest.approx(4e-3), "")
