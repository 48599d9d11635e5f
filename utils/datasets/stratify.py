"""Share units of images out to parts so that every class, and the number of images, comes close to given shares.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD 2011):
the rarest class first, since a wrong choice there can be mended least; each of its images to the part that still
lacks most of it. Here a unit may be several images that must stay together, and what is balanced are objects.
Single units are then moved for as long as that brings the shares closer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PASSES = 20  # over all units when moving them; a few are enough to come to rest


@dataclass(frozen=True)
class Units:
    """What is shared out: ``images`` [units] in each unit, ``objects`` [units, classes] in each of every class.

    Without classes (``objects`` [units, 0]) only the number of images is balanced.
    """

    images: np.ndarray
    objects: np.ndarray


def assign(units: Units, fractions: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """[units] the part, 0 to ``len(fractions)`` - 1, of every unit; ``fractions`` sum to one.

    No part is empty unless there are fewer units than parts.
    """
    shares = np.asarray(fractions, np.float64)
    draw = _Draw(units, shares)
    order = rng.permutation(len(units.images))
    while len(waiting := np.flatnonzero(draw.left)):
        rarest = waiting[draw.left[waiting].argmin()]
        draw.give(_largest_first(order, units.objects[:, rarest]), draw.lacking[rarest])
    draw.give(_largest_first(order, units.images), draw.room)
    if units.objects.shape[1]:
        _move(units, shares, draw.part_of, order)
    return draw.part_of


def _largest_first(order: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Units with a ``size``, the largest first while there is a choice; equal ones as in ``order``."""
    order = order[size[order] > 0]
    return order[np.argsort(-size[order], kind="stable")]


class _Draw:
    """Which units are given to which part, and what every part still lacks."""

    def __init__(self, units: Units, shares: np.ndarray) -> None:
        self.units = units
        self.shares = shares
        self.left = units.objects.sum(0)  # [classes] objects not given yet
        self.lacking = np.outer(self.left, shares)  # [classes, parts] objects still to come
        self.room = units.images.sum() * shares  # [parts] images still to come
        self.part_of = np.full(len(units.images), -1)
        self._waiting = len(units.images)
        self._empty = set(range(len(shares)))

    def give(self, members: np.ndarray, demand: np.ndarray) -> None:
        """Give ``members`` that wait, one by one, to the part that lacks most by ``demand`` [parts], then by room.

        ``demand`` is a view that shrinks as units are given.
        """
        for unit in members[self.part_of[members] < 0]:
            scarce = self._waiting <= len(self._empty)  # then no part takes a second one
            parts = self._empty if scarce else range(len(self.shares))
            part = max(parts, key=lambda p: (round(float(demand[p]), 6), round(float(self.room[p]), 6), -p))
            self.part_of[unit] = part
            self.left -= self.units.objects[unit]
            self.lacking[:, part] -= self.units.objects[unit]
            self.room[part] -= self.units.images[unit]
            self._waiting -= 1
            self._empty.discard(part)


def _move(units: Units, shares: np.ndarray, part_of: np.ndarray, order: np.ndarray) -> None:
    """Move units, in place of ``part_of``, while that lowers sum over parts of |share there - share wanted|^2 / wanted.

    The shares are those of the images and of every class.
    """
    amounts = np.column_stack([units.images, units.objects]).astype(np.float64)
    amounts = amounts[:, amounts.sum(0) > 0]
    amounts /= amounts.sum(0)  # [units, 1 + classes] share of all that a unit has
    excess = np.stack([amounts[part_of == part].sum(0) for part in range(len(shares))]) - shares[:, None]
    members = np.bincount(part_of, minlength=len(shares))
    for _ in range(_PASSES):
        moved = False
        for unit in order:
            own, amount = part_of[unit], amounts[unit]
            if members[own] == 1:
                continue
            along, square = 2 * excess @ amount, amount @ amount
            change = (along + square) / shares + (square - along[own]) / shares[own]
            change[own] = 0.0
            best = int(change.argmin())
            if change[best] < -1e-12:
                excess[own] -= amount
                excess[best] += amount
                members[[own, best]] += (-1, 1)
                part_of[unit] = best
                moved = True
        if not moved:
            return
