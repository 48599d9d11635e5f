"""How far two computations of the same numbers may be apart: as far as rounding alone takes them.

Sums in another order, folded norms and other kernels change the last digits, and a model whose layers magnify its
activations, such as one trained for an epoch only, changes them more. How much is measured on the model itself, by
computing the same once more in float64, and in float32 in other ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

# Of the model's own rounding, the largest of three ways to compute it, correct files were seen to be off by up to 2.5
# times in the largest difference, which is one value's luck, and by 1.5 times in the mean; those of a layer with
# weights of 1 % more by 3 to 1000 times.
TIMES, TIMES_OF_MEAN = 10, 5


def tolerance(own: float, floor: float, cap: float, times: float = TIMES) -> float:
    """The largest difference that rounding explains.

    Args:
        own: what the model's own float32 is off its float64.
        floor, cap: the limit is never below or above these.
    """
    return min(max(floor, times * own), cap)


@dataclass(frozen=True)
class OutputDifference:
    """How far outputs are apart, and how far they may be.

    Attributes:
        worst: the largest difference.
        limit: what is allowed of it.
        fault: what is apart too far, in words; "" when nothing is.
    """

    worst: float
    limit: float
    fault: str = ""


@dataclass(frozen=True)
class DifferenceNorms:
    """The largest difference of two tensors and the root of the mean square of all, which has less luck in it."""

    largest: float
    typical: float

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> DifferenceNorms:
        apart = (a.double() - b.double()).abs()
        return cls(float(apart.max()), float(apart.square().mean().sqrt()))

    def __or__(self, other: DifferenceNorms) -> DifferenceNorms:
        """The larger figures of both."""
        return DifferenceNorms(max(self.largest, other.largest), max(self.typical, other.typical))


OutputGroups = Sequence[tuple[str, Tensor]]  # what is measured by one scale each, such as boxes and scores


def differences(a: OutputGroups, b: OutputGroups) -> list[DifferenceNorms]:
    """Of each group."""
    return [DifferenceNorms.of(one, other) for (_, one), (_, other) in zip(a, b, strict=True)]


def compare_outputs(
    expected: OutputGroups,
    found: OutputGroups,
    rounding: Callable[[], Sequence[DifferenceNorms]],
    floor: float,
    cap: float,
) -> OutputDifference:
    """Compare the outputs of a model in float32 with those of a file or another form of it.

    The typical difference may be a tenth of the largest.

    Args:
        rounding: measures that of the model, of each group; asked only where a difference is above the floor.
        floor, cap: of what is allowed of the largest difference, see :func:`tolerance`.
    """
    apart = differences(expected, found)
    own: Sequence[DifferenceNorms] = [DifferenceNorms(0.0, 0.0)] * len(apart)
    if any(not (one.largest <= floor and one.typical <= floor / 10) for one in apart):
        own = rounding()
    gaps = []
    for (name, _), one, mine in zip(expected, apart, own):
        limit = tolerance(mine.largest, floor, cap)
        typical = tolerance(mine.typical, floor / 10, cap / 10, TIMES_OF_MEAN)
        fault = ""
        if not one.largest <= limit or math.isinf(one.largest):  # also when it is not a number
            fault = f"by {one.largest:.2g} in its {name}, allowed is {limit:.2g}"
        elif not one.typical <= typical:
            fault = f"by {one.typical:.2g} in the mean of its {name}, allowed is {typical:.2g}"
        gaps.append(OutputDifference(one.largest, limit, fault))
    return largest_difference(gaps)


def largest_difference(gaps: Sequence[OutputDifference]) -> OutputDifference:
    """The one with a fault, else the one closest to its limit."""
    return max(gaps, key=lambda one: (bool(one.fault), one.worst / one.limit))
