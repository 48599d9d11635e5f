"""``Loggers`` of YOLOv5 v6.1, for training loops of other scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils.compat.plots import plot_images
from utils.core.callbacks import FitEpochEnd, TrainStart
from utils.loggers.results_csv import RESULTS_CSV, V61_COLUMNS, ResultsCsv
from utils.plots import plot_results

_TRAIN_BATCHES = 3  # number of batches that are drawn


class Loggers:
    """Writes ``results.csv``, ``results.png`` and ``train_batch*.jpg`` of a run.

    Its methods have the names and arguments of v6.1; other events have no effect. TensorBoard, W&B and MLflow are
    options of ``train.py``.

    Args:
        save_dir: folder of the run.
        weights, opt, hyp, logger, include: without effect.
    """

    wandb: Any = None

    def __init__(
        self,
        save_dir: str | Path = ".",
        weights: Any = None,
        opt: Any = None,
        hyp: Any = None,
        logger: Any = None,
        include: Any = (),
    ) -> None:
        self.save_dir = Path(save_dir)
        self.opt, self.hyp = opt, hyp
        self._csv: ResultsCsv | None = None

    def on_train_batch_end(
        self, ni: int, model: Any, imgs: Tensor, targets: Tensor, paths: Any, plots: bool, sync_bn: bool = False
    ) -> None:
        """Draw the first batches, as ``train_batch0.jpg`` and so on."""
        if plots and ni < _TRAIN_BATCHES:
            plot_images(imgs, targets, paths, self.save_dir / f"train_batch{ni}.jpg")

    def on_fit_epoch_end(self, vals: Any, epoch: int, best_fitness: float, fi: float) -> None:
        """Add the row of an epoch to ``results.csv``; rows of this and later epochs from an older run are removed.

        Args:
            vals: 3 training losses, precision, recall, mAP@.5, mAP@.5:.95, 3 validation losses, 3 learning rates.
        """
        if self._csv is None:
            self._csv = ResultsCsv()
            labels = np.zeros((0, 5))
            self._csv.on_train_start(
                TrainStart(save_dir=self.save_dir, epochs=epoch + 1, names=(), labels=labels, resumed_epoch=epoch)
            )
        row = dict(zip(V61_COLUMNS[1:], map(float, vals), strict=True))
        self._csv.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row=row))

    def on_train_end(self, last: Any, best: Any, plots: bool, epoch: int, results: Any) -> None:
        """Draw ``results.png``."""
        if plots:
            plot_results(self.save_dir / RESULTS_CSV)

    def _nothing(self, *_: Any, **__: Any) -> None:
        """Handle an event without output."""

    on_train_start = on_pretrain_routine_end = on_train_epoch_end = on_val_image_end = on_val_end = _nothing
    on_model_save = on_params_update = _nothing
