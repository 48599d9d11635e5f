"""MLflow, into a database file of the run folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.config.hyp import Hyp
from utils.core.callbacks import Callback, FitEpochEnd, TrainEnd, TrainStart
from utils.core.output import OutputFolder
from utils.core.packages import import_optional
from utils.loggers.results_csv import WITHOUT

logger = logging.getLogger(__name__)

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
_EXPERIMENT = "yolov5-dynamic"
_LONGEST = 500  # characters of a parameter; MLflow takes no more


def require_mlflow() -> Any:
    """Import the package.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # otherwise it reports its use to its makers
    mlflow = import_optional("mlflow", "mlflow", "--mlflow", WITHOUT)  # very slow to import
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a line for each step of making the database
    return mlflow


class MlflowLogger(Callback):
    """Writes options, hyper-parameters, metrics and images into ``mlflow.db`` and ``mlartifacts/`` of the run folder.

    ``mlflow ui --backend-store-uri sqlite:///<run folder>/mlflow.db`` shows them. Metrics have the names of
    results.csv, and their step is the epoch. A resumed run continues the same MLflow run.

    Args:
        config, hyp: all options of the run, and its hyper-parameters; recorded as parameters.
    """

    def __init__(self, config: Mapping[str, Any], hyp: Hyp) -> None:
        self._mlflow = require_mlflow()
        self._params = {**config, **{f"hyp.{name}": value for name, value in hyp.to_dict().items()}}
        self._client: Any = None
        self._run = ""

    def on_train_start(self, event: TrainStart) -> None:
        """Open the database and the run in it."""
        output = OutputFolder(event.save_dir)
        output.path(ARTIFACTS)
        file = output.path(DATABASE).resolve()
        address = f"sqlite:///{file}"  # of this client only: the address of the whole process does not change
        self._client = self._mlflow.MlflowClient(tracking_uri=address)
        known = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = known.experiment_id if known else self._new_experiment(file.with_name(ARTIFACTS))
        earlier = self._client.search_runs([experiment], max_results=1) if event.resumed_epoch else []
        if earlier:
            self._run = earlier[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(experiment, run_name=event.save_dir.name).info.run_id
            params = [self._mlflow.entities.Param(name, str(value)[:_LONGEST]) for name, value in self._params.items()]
            self._client.log_batch(self._run, params=params)
        logger.info("MLflow: mlflow ui --backend-store-uri %s", address)

    def _new_experiment(self, artifacts: Path) -> str:
        return str(self._client.create_experiment(_EXPERIMENT, artifact_location=artifacts.as_uri()))

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """Log the row of results.csv."""
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, value, now, event.epoch) for name, value in event.row.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def on_train_end(self, event: TrainEnd) -> None:
        """Log the images and tables of the run folder, and the path of the best checkpoint."""
        for pattern in ("*.png", "*.jpg", "*.csv"):
            for file in sorted(event.save_dir.glob(pattern)):
                self._client.log_artifact(self._run, str(file))
        if event.best is not None:
            self._client.set_tag(self._run, "best", str(event.best))
        self._client.set_terminated(self._run)
