"""Comparison of outputs that are equal except for rounding.

Sums in another order, fused norms and other kernels change the last digits, and a model with growing activations, such
as one that was trained for an epoch, changes more of them. The rounding is measured on the model itself: its outputs in
float32, computed in several ways, are compared with those in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

# Limits in multiples of the model's rounding. Correct files were measured at up to 2.5 times in the largest difference,
# which depends on a single value, and 1.5 times in the mean; those with a layer changed by 1 % at 3 to 1000.
TIMES, TIMES_OF_MEAN = 10, 5


def tolerance(own: float, floor: float, cap: float, times: float = TIMES) -> float:
    """Return the largest difference that rounding explains.

    Args:
        own: difference between the model in float32 and in float64.
        floor, cap: smallest and largest result.
    """
    return min(max(floor, times * own), cap)


@dataclass(frozen=True)
class OutputDifference:
    """Result of a comparison.

    Attributes:
        worst: the largest difference.
        limit: its limit.
        fault: description of a difference above its limit; "" when there is none.
    """

    worst: float
    limit: float
    fault: str = ""


@dataclass(frozen=True)
class DifferenceNorms:
    """The largest difference of two tensors, and the root mean square, which depends less on single values."""

    largest: float
    typical: float

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> DifferenceNorms:
        difference = (a.double() - b.double()).abs()
        return cls(float(difference.max()), float(difference.square().mean().sqrt()))

    def __or__(self, other: DifferenceNorms) -> DifferenceNorms:
        """The larger values of both."""
        return DifferenceNorms(max(self.largest, other.largest), max(self.typical, other.typical))


OutputGroups = Sequence[tuple[str, Tensor]]  # outputs with one scale per group, such as boxes and scores


def differences(a: OutputGroups, b: OutputGroups) -> list[DifferenceNorms]:
    """Return the differences of each group."""
    return [DifferenceNorms.of(one, other) for (_, one), (_, other) in zip(a, b, strict=True)]


def compare_outputs(
    expected: OutputGroups,
    actual: OutputGroups,
    rounding: Callable[[], Sequence[DifferenceNorms]],
    floor: float,
    cap: float,
) -> OutputDifference:
    """Compare the outputs of a model in float32 with those of an exported file or of another form of the model.

    The limit of the mean difference is a tenth of that of the largest.

    Args:
        rounding: measures the model's rounding per group; only called when a difference is above the floor.
        floor, cap: of the limit of the largest difference, see :func:`tolerance`.
    """
    measured = differences(expected, actual)
    own: Sequence[DifferenceNorms] = [DifferenceNorms(0.0, 0.0)] * len(measured)
    if any(not (one.largest <= floor and one.typical <= floor / 10) for one in measured):  # nan counts as above
        own = rounding()
    results = []
    for (name, _), one, own_of_group in zip(expected, measured, own):
        limit = tolerance(own_of_group.largest, floor, cap)
        typical = tolerance(own_of_group.typical, floor / 10, cap / 10, TIMES_OF_MEAN)
        fault = ""
        if not one.largest <= limit or math.isinf(one.largest):  # also for nan
            fault = f"by {one.largest:.2g} in its {name}, allowed is {limit:.2g}"
        elif not one.typical <= typical:
            fault = f"by {one.typical:.2g} in the mean of its {name}, allowed is {typical:.2g}"
        results.append(OutputDifference(one.largest, limit, fault))
    return largest_difference(results)


def largest_difference(results: Sequence[OutputDifference]) -> OutputDifference:
    """Return a result with a fault, else the one closest to its limit."""
    return max(results, key=lambda one: (bool(one.fault), one.worst / one.limit))
