"""TensorBoard: curves, routing of the dynamic layers, the graph of the model and the images, in the run folder."""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from models.yolo import Model
from utils.core.callbacks import Callback, FitEpochEnd, TrainEnd, TrainStart, ValEnd
from utils.core.errors import first_line
from utils.core.image import read_image
from utils.core.packages import import_optional
from utils.loggers.results_csv import WITHOUT

logger = logging.getLogger(__name__)


def require_tensorboard() -> Any:
    """Import the writer class.

    Raises:
        InputError: TensorBoard is not installed.
    """
    return import_optional(
        "torch.utils.tensorboard", "tensorboard", "--tensorboard", WITHOUT
    ).SummaryWriter  # slow to import


class TensorBoardLogger(Callback):
    """Writes an event file into the run folder: ``tensorboard --logdir runs/train`` shows all runs side by side.

    Scalars have the names of results.csv; each dynamic layer adds the mean weight and the share of its kernels and
    its entropy. Images are those in the run folder. A resumed run continues its curves.

    Args:
        model: whose graph is shown, traced with an image of twice its largest stride; None: no graph.
    """

    def __init__(self, model: Model | None = None) -> None:
        self._make_writer = require_tensorboard()
        self._model = model
        self._writer: Any = None
        self._save_dir = Path()

    def on_train_start(self, event: TrainStart) -> None:
        """Open the event file; values of an interrupted epoch are hidden in a resumed run."""
        self._save_dir = event.save_dir
        self._writer = self._make_writer(str(event.save_dir), purge_step=event.resumed_epoch or None)
        if self._model is not None and not event.resumed_epoch:
            self._write_graph(self._model)
        logger.info("TensorBoard: tensorboard --logdir %s", event.save_dir.parent)

    def _write_graph(self, model: Model) -> None:
        """Trace a copy, so that statistics and random numbers of the run do not change."""
        twin = copy.deepcopy(model).float().cpu().eval()
        side = 2 * int(twin.stride.max())
        image = torch.zeros(1, twin.yaml["ch"], side, side)
        try:
            with warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")  # that the trace is valid for this image only
                self._writer.add_graph(torch.jit.trace(twin, image, strict=False), [])
        except Exception as error:  # a user's layer that cannot be traced can still be trained
            logger.warning("TensorBoard: the graph of the model cannot be shown: %s", first_line(error))

    def on_val_end(self, event: ValEnd) -> None:
        """Log the routing of every dynamic layer."""
        for layer in event.routing:
            for what, values in (("mean", layer.mean), ("dominant", layer.dominant)):
                for kernel, value in enumerate(values):
                    tag = f"routing_{layer.name}/{what}_{kernel}"
                    self._writer.add_scalar(tag, float(value), event.epoch)
            self._writer.add_scalar(f"routing_{layer.name}/entropy", layer.entropy, event.epoch)

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """Log the row of results.csv; the routing has separate curves."""
        for name, value in event.row.items():
            if not name.startswith("routing/"):
                self._writer.add_scalar(name, value, event.epoch)
        self._writer.flush()

    def on_train_end(self, event: TrainEnd) -> None:
        """Log the plots and images of the run folder, and close the file."""
        for file in sorted([*self._save_dir.glob("*.png"), *self._save_dir.glob("*.jpg")]):
            self._writer.add_image(file.stem, read_image(file)[..., ::-1].copy(), event.epochs_run, dataformats="HWC")
        self._writer.close()
