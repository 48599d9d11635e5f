"""Does it matter which kernels an image gets? A model scored with kernel weights that belong to other images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.dynamic import attention_layers
from models.routing import RoutingRecorder, RoutingStats, layer_names
from utils.core.errors import InputError
from utils.datasets.loader import Batch
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.results import EvalResult, ImageResult

CONDITIONS = "conditions.csv"  # image,condition: beside the images of a set or above them


@dataclass(frozen=True)
class RoutedScores:
    """A model's scores on one set.

    Attributes:
        own: as it is.
        foreign: with other weights, by name: ``mean`` (of all images), ``same`` and ``other`` (those of a random other
            image of the same condition, or of another one); without conditions ``any`` other image.
        stats: figures of each dynamic layer.
        by_condition: layer -> condition -> mean weights [K].
    """

    own: EvalResult
    foreign: Mapping[str, EvalResult] = field(default_factory=dict)
    stats: tuple[RoutingStats, ...] = ()
    by_condition: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


class _Paths:
    """Notes the images in the order in which the model sees them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        self.names += [Path(path).name for path in batch.paths]

    def on_image(self, result: ImageResult) -> None:
        """Nothing per image."""


def read_conditions(folder: Path) -> dict[str, str]:
    """Image name -> condition, from the ``conditions.csv`` in ``folder`` or the two above it; empty without one.

    Raises:
        InputError: the file has other columns.
    """
    found = next((at / CONDITIONS for at in (folder, *folder.parents[:2]) if (at / CONDITIONS).is_file()), None)
    if found is None:
        return {}
    with found.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    if not rows or rows[0] != ["image", "condition"] or any(len(row) != 2 for row in rows):
        raise InputError(f"{found}: expected the columns image,condition and a line per image")
    return dict(rows[1:])


def routed_scores(
    model: nn.Module,
    evaluator: Evaluator,
    conditions: Mapping[str, str] | None = None,
    seed: int = 0,
    foreign: bool = True,
) -> RoutedScores:
    """Score ``model`` as it is and, if it has dynamic layers, with the kernel weights of other images.

    Args:
        evaluator: its batches must come in the same order each time.
        conditions: image name -> condition; None or empty: the images are of one kind.
        seed: of the choice of the other images.
        foreign: False leaves out the scores with other weights.

    Raises:
        InputError: an image of the set has no condition.
    """
    paths = _Paths()
    with RoutingRecorder(model) as recorder:
        own = evaluator.run(model, None, [paths])
    if not recorder.layers:
        return RoutedScores(own)
    weights = {name: recorder.weights(name) for name in recorder.layers}
    groups = _groups(paths.names, conditions or {})
    scores: dict[str, EvalResult] = {}
    averaged = {name: rows.nanmean(0).expand(len(rows), -1) for name, rows in weights.items()}
    given = {"mean": averaged}
    for kind, order in _other_images(groups, np.random.default_rng(seed)).items():
        given[kind] = {name: rows[torch.from_numpy(order)] for name, rows in weights.items()}
    for kind, of_others in given.items() if foreign else ():
        with given_weights(model, of_others):
            scores[kind] = evaluator.run(model)
    by_condition = {
        name: {group: rows[torch.from_numpy(groups == group)].nanmean(0).numpy() for group in sorted(set(groups))}
        for name, rows in weights.items()
    }
    return RoutedScores(own, scores, recorder.stats(), by_condition if conditions else {})


def _groups(names: Sequence[str], conditions: Mapping[str, str]) -> np.ndarray:
    """The condition of each image."""
    missing = [name for name in names if conditions and name not in conditions]
    if missing:
        raise InputError(f"{CONDITIONS}: no line for {missing[0]} ({len(missing)} such images)")
    return np.array([conditions.get(name, "") for name in names])


def _other_images(groups: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """For each image another one, by kind; a kind for which there is none is left out."""
    every = np.arange(len(groups))
    several = len(set(groups)) > 1
    chosen: dict[str, np.ndarray] = {}
    for kind in ("same", "other") if several else ("any",):
        pools = {group: every[(groups == group) != (kind == "other")] for group in set(groups)}
        if min(map(len, pools.values())) < 2:
            continue
        picks = [rng.choice(pool[pool != i]) for i, pool in ((i, pools[group]) for i, group in enumerate(groups))]
        chosen[kind] = np.array(picks)
    return chosen


@contextmanager
def given_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let dynamic layers use given kernel weights, row n for the n-th image that passes through ``model``.

    Args:
        weights: name of the layer, as :func:`models.routing.layer_names` has it -> [images, K].
    """
    at, names = 0, layer_names(model)

    def replace(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            rows = weights[name][at : at + len(output)]
            return rows.to(output) if rows.shape == output.shape else output

        return hook

    def advance(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        nonlocal at
        at += len(args[0])

    handles = [
        module.register_forward_hook(replace(names[name]))
        for name, module in attention_layers(model)
        if names[name] in weights
    ]
    handles.append(model.register_forward_hook(advance))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
