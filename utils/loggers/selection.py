"""The loggers that the options of a run select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from models.routing import layer_names
from models.yolo import Model
from utils.config.hyp import Hyp
from utils.config.train_slices import LoggerOptions
from utils.core.callbacks import Callback
from utils.datasets.labels.records import LabelRecord
from utils.loggers.console import ConsoleLogger
from utils.loggers.mlflow import MlflowLogger, require_mlflow
from utils.loggers.plots_logger import PlotsLogger
from utils.loggers.results_csv import ResultsCsv
from utils.loggers.routing_csv import RoutingCsv
from utils.loggers.routing_warning import RoutingWarning
from utils.loggers.tensorboard import TensorBoardLogger, require_tensorboard
from utils.loggers.wandb import WandbLogger, require_wandb


def require_packages(options: LoggerOptions) -> None:
    """Raise InputError: a package that a selected logger needs is not installed."""
    for selected, require in (
        (options.tensorboard, require_tensorboard),
        (options.wandb, require_wandb),
        (options.mlflow, require_mlflow),
    ):
        if selected:
            require()


def select_loggers(
    options: LoggerOptions,
    config: Mapping[str, Any],
    hyp: Hyp,
    model: Model,
    labels: Mapping[str, Sequence[LabelRecord]],
) -> list[Callback]:
    """Make the selected loggers.

    Args:
        options: which ones, and their settings.
        config, hyp: all options of the run, and its hyper-parameters.
        model: in training.
        labels: of each split.
    """
    loggers: list[Callback] = [ResultsCsv(), ConsoleLogger()]
    if options.evolve is None:
        loggers.append(PlotsLogger())
    if options.tensorboard:
        loggers.append(TensorBoardLogger(model))  # after the plots, which it shows
    if options.wandb:
        loggers.append(WandbLogger(options, config, hyp, labels))
    if options.mlflow:
        loggers.append(MlflowLogger(config, hyp))
    return loggers


def routing_loggers(ema: nn.Module, iterations: int, temperature_end: float, too_short: bool) -> list[Callback]:
    """Make the loggers of the routing of dynamic layers; none for a model without.

    Args:
        ema: EMA model.
        iterations: of the whole run.
        temperature_end: last temperature of the run.
        too_short: the run is too short to assess the routing, and this is logged instead.
    """
    if not layer_names(ema):
        return []
    table = RoutingCsv(temperature_end, too_short=too_short)
    return [table] if too_short else [table, RoutingWarning(ema, iterations, temperature_end)]
