"""Evaluation of a dynamic model with the kernel weights of other images: whether the routing matters."""

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
from utils.evaluation.evaluator import Evaluator, Observer
from utils.evaluation.results import EvalResult

CONDITIONS = "conditions.csv"  # image,condition: beside the images of a set or above them


@dataclass(frozen=True)
class RoutingScores:
    """The results of a model with its own kernel weights and with others.

    Attributes:
        own: with its own weights.
        foreign: with other weights, by name: ``mean`` (of all images), ``same`` and ``other`` (those of a random other
            image of the same or of another condition); without conditions ``any`` (any other image).
        stats: routing statistics of each dynamic layer.
        by_condition: layer -> condition -> mean weights [K].
    """

    own: EvalResult
    foreign: Mapping[str, EvalResult] = field(default_factory=dict)
    stats: tuple[RoutingStats, ...] = ()
    by_condition: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


class _ImageNames(Observer):
    """Records the names of the images in the order of the evaluation."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        self.names += [Path(path).name for path in batch.paths]


def read_conditions(folder: Path) -> dict[str, str]:
    """Read image name -> condition from ``conditions.csv`` in ``folder`` or the two above it; empty without one.

    Raises:
        InputError: the file has other columns.
    """
    files = (place / CONDITIONS for place in (folder, *folder.parents[:2]))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return {}
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    if not rows or rows[0] != ["image", "condition"] or any(len(row) != 2 for row in rows):
        raise InputError(f"{file}: expected the columns image,condition and a line per image")
    return dict(rows[1:])


def evaluate_routings(
    model: nn.Module,
    evaluator: Evaluator,
    conditions: Mapping[str, str] | None = None,
    seed: int = 0,
    foreign: bool = True,
) -> RoutingScores:
    """Evaluate ``model`` with its own kernel weights and, if it has dynamic layers, with those of other images.

    Args:
        evaluator: its batches must come in the same order each time.
        conditions: image name -> condition; None or empty: all images have the same.
        seed: of the random choice of other images.
        foreign: False skips the evaluations with other weights.

    Raises:
        InputError: an image of the set has no condition.
    """
    image_names = _ImageNames()
    with RoutingRecorder(model) as recorder:
        own = evaluator.run(model, None, [image_names])
    if not recorder.layers:
        return RoutingScores(own)
    weights = {name: recorder.weights(name) for name in recorder.layers}
    groups = _groups(image_names.names, conditions or {})
    results: dict[str, EvalResult] = {}
    averaged = {name: rows.nanmean(0).expand(len(rows), -1) for name, rows in weights.items()}
    weights_of_kind = {"mean": averaged}
    for kind, order in _other_images(groups, np.random.default_rng(seed)).items():
        weights_of_kind[kind] = {name: rows[torch.from_numpy(order)] for name, rows in weights.items()}
    for kind, of_others in weights_of_kind.items() if foreign else ():
        with fixed_routing(model, of_others):
            results[kind] = evaluator.run(model)
    by_condition = {
        name: {group: rows[torch.from_numpy(groups == group)].nanmean(0).numpy() for group in sorted(set(groups))}
        for name, rows in weights.items()
    }
    return RoutingScores(own, results, recorder.stats(), by_condition if conditions else {})


def _groups(names: Sequence[str], conditions: Mapping[str, str]) -> np.ndarray:
    """Return the condition of each image."""
    missing = [name for name in names if conditions and name not in conditions]
    if missing:
        raise InputError(f"{CONDITIONS}: no line for {missing[0]} ({len(missing)} such images)")
    return np.array([conditions.get(name, "") for name in names])


def _other_images(groups: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Choose another image for each image, by kind; a kind without enough images is skipped."""
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
def fixed_routing(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let dynamic layers use given kernel weights: row n for the n-th image of the evaluation.

    Args:
        weights: name of the layer, see :func:`models.routing.layer_names` -> [images, K].
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
