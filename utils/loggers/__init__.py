"""Loggers of a training run; each is a ``utils.core.callbacks.Callback``."""

from typing import Any

from utils.core.v61 import import_served
from utils.loggers.console import ConsoleLogger
from utils.loggers.mlflow import MlflowLogger
from utils.loggers.plots_logger import PlotsLogger
from utils.loggers.results_csv import ResultsCsv
from utils.loggers.routing_csv import RoutingCsv
from utils.loggers.routing_warning import RoutingWarning
from utils.loggers.selection import require_packages, routing_loggers, select_loggers
from utils.loggers.tensorboard import TensorBoardLogger
from utils.loggers.wandb import WandbLogger

__all__ = [
    "ConsoleLogger",
    "MlflowLogger",
    "PlotsLogger",
    "ResultsCsv",
    "RoutingCsv",
    "RoutingWarning",
    "TensorBoardLogger",
    "WandbLogger",
    "require_packages",
    "routing_loggers",
    "select_loggers",
]


def __getattr__(name: str) -> Any:
    return import_served("utils.loggers", name)
