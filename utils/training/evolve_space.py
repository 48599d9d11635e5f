"""What ``--evolve`` searches: the range and the mutation gain of each hyper-parameter, and the rule of mutation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.config.hyp import Hyp

PARENTS = 5  # the best sets so far, one of which is mutated
MUTATION_PROBABILITY, SIGMA = 0.8, 0.2
FACTOR_LIMITS = (0.3, 3.0)  # of what a value is multiplied by
DIGITS = 5  # behind the point, as in v6.1's files


@dataclass(frozen=True)
class Gene:
    """Range of a hyper-parameter, with ``low`` and ``high``; ``gain`` scales its mutations, 0: none."""

    gain: float
    low: float
    high: float

    def clip(self, value: float) -> float:
        """Return ``value`` limited to the range, rounded."""
        return round(min(max(float(value), self.low), self.high), DIGITS)


# The table of v6.1, in the order of its files.
V61_GENES: dict[str, Gene] = {
    "lr0": Gene(1, 1e-5, 0.1),
    "lrf": Gene(1, 0.01, 1.0),
    "momentum": Gene(0.3, 0.6, 0.98),
    "weight_decay": Gene(1, 0.0, 0.001),
    "warmup_epochs": Gene(1, 0.0, 5.0),
    "warmup_momentum": Gene(1, 0.0, 0.95),
    "warmup_bias_lr": Gene(1, 0.0, 0.2),
    "box": Gene(1, 0.02, 0.2),
    "cls": Gene(1, 0.2, 4.0),
    "cls_pw": Gene(1, 0.5, 2.0),
    "obj": Gene(1, 0.2, 4.0),
    "obj_pw": Gene(1, 0.5, 2.0),
    "iou_t": Gene(0, 0.1, 0.7),
    "anchor_t": Gene(1, 2.0, 8.0),
    "fl_gamma": Gene(0, 0.0, 2.0),
    "hsv_h": Gene(1, 0.0, 0.1),
    "hsv_s": Gene(1, 0.0, 0.9),
    "hsv_v": Gene(1, 0.0, 0.9),
    "degrees": Gene(1, 0.0, 45.0),
    "translate": Gene(1, 0.0, 0.9),
    "scale": Gene(1, 0.0, 0.9),
    "shear": Gene(1, 0.0, 10.0),
    "perspective": Gene(0, 0.0, 0.001),
    "flipud": Gene(1, 0.0, 1.0),
    "fliplr": Gene(0, 0.0, 1.0),
    "mosaic": Gene(1, 0.0, 1.0),
    "mixup": Gene(1, 0.0, 1.0),
    "copy_paste": Gene(1, 0.0, 1.0),
}
# Searched only when the file of --hyp names them: without ``anchors`` the model keeps its own, and with them the head
# of a pretrained model is lost as soon as their number changes. The others are not in v6.1.
NAMED_GENES: dict[str, Gene] = {
    "anchors": Gene(2, 2.0, 10.0),
    "label_smoothing": Gene(1, 0.0, 0.3),
    "mosaic9": Gene(1, 0.0, 1.0),
    "cutout": Gene(1, 0.0, 1.0),
    "hist_equalize": Gene(1, 0.0, 1.0),
    "albumentations": Gene(1, 0.0, 1.0),
    "temperature_start": Gene(1, 1.0, 100.0),
    "temperature_step": Gene(1, 0.1, 30.0),
    "temperature_span": Gene(1, 0.0, 1.0),
    "kernel_lr": Gene(1, 0.25, 16.0),
    "attention_lr": Gene(1, 0.25, 16.0),
}


@dataclass(frozen=True)
class SearchSpace:
    """The hyper-parameters that are searched.

    Attributes:
        start: hyper-parameters of the first trial, each inside its range.
        genes: by name, in the order of the columns of evolve.csv.
    """

    start: Hyp
    genes: Mapping[str, Gene]

    @classmethod
    def around(cls, hyp: Hyp, named: Iterable[str], without: Iterable[str] = ()) -> SearchSpace:
        """Return the space of a run.

        Args:
            hyp: starting values.
            named: hyper-parameters in the file of ``--hyp``.
            without: those that an option fixes.
        """
        added = {name: gene for name, gene in NAMED_GENES.items() if name in named and getattr(hyp, name) is not None}
        genes = {name: gene for name, gene in (V61_GENES | added).items() if name not in without}
        if "temperature_start" in genes:  # the temperature can only fall
            gene = genes["temperature_start"]
            genes["temperature_start"] = Gene(gene.gain, hyp.temperature_end, max(gene.high, hyp.temperature_end))
        values = {name: gene.clip(getattr(hyp, name)) for name, gene in genes.items()}
        return cls(Hyp.from_dict(hyp.to_dict() | values), genes)

    @property
    def searched(self) -> dict[str, Gene]:
        """The genes that change: a gain of 0 fixes a hyper-parameter."""
        return {name: gene for name, gene in self.genes.items() if gene.gain > 0}

    def start_values(self) -> dict[str, float]:
        """Return the starting values of the hyper-parameters that are searched."""
        return {name: float(getattr(self.start, name)) for name in self.searched}

    def hyp(self, values: Mapping[str, float]) -> Hyp:
        """Return all hyper-parameters, with ``values`` for those that are searched."""
        return Hyp.from_dict(self.start.to_dict() | dict(values))

    def mutate(
        self, parents: Sequence[Mapping[str, float]], fitnesses: Sequence[float], rng: np.random.Generator
    ) -> dict[str, float]:
        """Return the values of a new trial by v6.1's rule: most values of one of the best trials, slightly changed.

        The parent is drawn among the five best with the weight ``fitness - lowest of these + 1e-6``. Each value is
        then multiplied, with a probability of 0.8, by 1 + gain * 0.2 * a standard normal number * a uniform one that is
        common to all, limited to 0.3 .. 3. A value of 0, which turns an effect off, does not change.
        """
        best = sorted(zip(fitnesses, range(len(parents))), key=lambda pair: -pair[0])[:PARENTS]
        weights = np.array([value for value, _ in best]) - best[-1][0] + 1e-6
        parent = parents[best[rng.choice(len(best), p=weights / weights.sum())][1]]
        genes = self.searched
        chosen = np.zeros(len(genes), dtype=bool)
        while not chosen.any():
            chosen = rng.random(len(genes)) < MUTATION_PROBABILITY
        gains = np.array([gene.gain for gene in genes.values()])
        change = gains * SIGMA * rng.standard_normal(len(genes)) * rng.random()
        factors = np.where(chosen, 1 + change, 1.0).clip(*FACTOR_LIMITS)
        old = {name: parent.get(name, getattr(self.start, name)) for name in genes}
        return {name: gene.clip(old[name] * factor) for (name, gene), factor in zip(genes.items(), factors)}
