"""The validation after an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.routing import RoutingStats
from utils.core.callbacks import ValEnd
from utils.datasets.loader_errors import NoBatchError
from utils.evaluation import EvalResult
from utils.evaluation.observers import RoutingObserver
from utils.metrics import fitness
from utils.training.epoch_batches import StopObserver, worker_errors
from utils.training.session import Session


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        metrics: metrics and losses by the column names of v6.1.
        fitness: by which the best epoch is chosen.
        routing: of the dynamic layers.
    """

    metrics: dict[str, float]
    fitness: float
    routing: tuple[RoutingStats, ...]


def validate(s: Session, epoch: int) -> Validation | None:
    """Evaluate the EMA model on the validation set.

    Returns:
        None when a signal arrived meanwhile.
    """
    try:
        with worker_errors(s.stop), RoutingObserver(s.ema.model, s.model.nc, s.ranks) as observer:
            result = s.evaluator.run(s.ema.model, s.loss, [observer, StopObserver(s.stop), *s.observers])
    except (NoBatchError, RuntimeError):
        if s.stop.requested:
            return None
        raise
    s.state.class_map = result.map_per_class(s.model.nc)
    values = np.array([[result.precision, result.recall, result.map50, result.map]])
    validation = Validation(metric_columns(result), float(fitness(values)[0]), observer.layer_stats())
    per_class = dict(zip(s.model.names, s.state.class_map.tolist()))
    s.callbacks.on_val_end(
        ValEnd(epoch=epoch, metrics=validation.metrics, per_class_ap=per_class, routing=validation.routing)
    )
    return validation


def metric_columns(result: EvalResult) -> dict[str, float]:
    """Return metrics and losses by the column names of v6.1."""
    box, obj, cls = result.losses
    return {
        "metrics/precision": result.precision,
        "metrics/recall": result.recall,
        "metrics/mAP_0.5": result.map50,
        "metrics/mAP_0.5:0.95": result.map,
        "val/box_loss": box,
        "val/obj_loss": obj,
        "val/cls_loss": cls,
    }
