"""Paired differences, tables and charts of a study."""

from __future__ import annotations

import math

import pytest

from tools.study.summary import Group, paired


def test_the_interval_is_that_of_students_t_and_the_test_that_of_the_signs() -> None:
    found = paired({0: 0.32, 1: 0.33, 2: 0.31}, {0: 0.30, 1: 0.30, 2: 0.30, 3: 0.9})
    assert found.seeds == (0, 1, 2) and found.each == pytest.approx((2, 3, 1))
    # mean 2, sd 1, t(0.975, 2) = 4.3027: 2 +- 4.3027 / sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-4)
    assert found.wins == 3 and found.p == pytest.approx(0.25)


def test_one_seed_has_no_interval_and_none_no_difference() -> None:
    assert math.isnan(paired({0: 0.3}, {0: 0.2}).low)
    assert str(paired({0: 0.3}, {1: 0.2})) == ""


def rows() -> list[dict[str, str]]:
    made = []
    for arm, scores, gflops in (
        ("static", (0.30, 0.31), 0.1),
        ("wide", (0.31, 0.32), 0.11),
        ("dyn", (0.33, 0.35), 0.11),
    ):
        for seed, score in enumerate(scores):
            made.append(
                {
                    "arm": arm, "seed": str(seed), "lr0": "0.01", "val_map": "0.5", "test_map": str(score), "error": "",
                    "gflops": str(gflops), "minutes": "2",
                    "test_entropy": "0.5" if arm == "dyn" else "",
                }
            )  # fmt: skip
    return made


def test_a_table_has_a_line_per_arm_with_the_differences_to_each_baseline() -> None:
    group = Group(rows(), ["static", "wide", "unused"])
    lines = group.table()
    assert group.split == "test" and group.best_baseline == "wide" and len(lines) == 5
    assert "against static | against wide" in lines[0]
    assert "| dyn | 0.01 | 2 | 34.00 ± 1.41 | +3.50" in lines[4] and "(+0.0 %)" in lines[4] and "0.500" in lines[4]


def test_a_run_that_diverged_is_no_score() -> None:
    diverged = {**rows()[0], "seed": "7", "test_map": "", "error": "the loss is nan"}
    assert Group([*rows(), diverged], ["static"]).scores("static") == {0: 0.30, 1: 0.31}
