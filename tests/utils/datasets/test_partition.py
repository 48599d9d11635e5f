"""Sharing units out: close to the shares wanted, by the seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from utils.datasets.stratify import Units, assign

Counts = list[list[int]]


def units(objects: Counts, images: list[int] | None = None) -> Units:
    table = np.array(objects).reshape(len(objects), -1)
    return Units(np.array(images or [1] * len(objects)), table)


def draw(given: Units, fractions: list[float], seed: int = 0) -> np.ndarray:
    return assign(given, fractions, np.random.default_rng(seed))


def test_by_hand_two_classes_are_halved() -> None:
    part_of = draw(units([[1, 0]] * 4 + [[0, 1]] * 2), [0.5, 0.5])
    assert sorted(part_of[:4]) == [0, 0, 1, 1]
    assert sorted(part_of[4:]) == [0, 1]


def test_by_hand_a_rare_class_that_comes_with_a_common_one_is_halved() -> None:
    part_of = draw(units([[1, 1], [1, 1], [2, 0], [2, 0]]), [0.5, 0.5])
    assert sorted(part_of[:2]) == [0, 1]
    assert sorted(part_of[2:]) == [0, 1]


@pytest.mark.parametrize(
    ("n", "fractions", "expected"),
    [(10, [0.8, 0.1, 0.1], [8, 1, 1]), (7, [0.5, 0.5], [4, 3]), (100, [0.7, 0.2, 0.1], [70, 20, 10])],
)
def test_without_classes_the_numbers_of_images_are_exact(n: int, fractions: list[float], expected: list[int]) -> None:
    part_of = draw(units([[]] * n), fractions)
    assert np.bincount(part_of).tolist() == expected


def test_large_units_are_placed_so_that_the_numbers_of_images_fit() -> None:
    images = [1, 1, 6, 1, 1]
    part_of = draw(units([[]] * 5, images), [0.6, 0.4])
    assert np.bincount(part_of, weights=images).tolist() == [6, 4]


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_twenty_classes_and_of_images_come_within_one_percent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = rng.poisson(rng.uniform(0.05, 1.0, 20), (1000, 20))
    part_of = draw(Units(np.ones(1000, int), objects), [0.8, 0.1, 0.1], seed)
    shares = np.stack([objects[part_of == part].sum(0) for part in range(3)]) / objects.sum(0)
    assert np.abs(shares - [[0.8], [0.1], [0.1]]).max() < 0.01
    assert np.abs(np.bincount(part_of) / 1000 - [0.8, 0.1, 0.1]).max() < 0.01


def test_a_plain_draw_is_further_from_the_shares_than_a_stratified_one() -> None:
    objects = np.random.default_rng(0).poisson(0.1, (300, 10))
    errors = []
    for table in (objects, objects[:, :0]):
        part_of = draw(Units(np.ones(300, int), table), [0.8, 0.2])
        errors.append(np.abs(objects[part_of == 1].sum(0) / objects.sum(0) - 0.2).max())
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("objects", [[[]] * 3, [[1]] * 3, [[5, 0], [0, 5], [1, 1]]])
def test_no_part_is_empty_while_there_are_enough_units(objects: Counts) -> None:
    assert sorted(draw(units(objects), [0.8, 0.1, 0.1])) == [0, 1, 2]


def test_the_same_seed_gives_the_same_parts_and_another_seed_others() -> None:
    given = units([[1, 0], [0, 1]] * 30)
    first, again, other = (draw(given, [0.5, 0.5], seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
