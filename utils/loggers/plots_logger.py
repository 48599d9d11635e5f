"""Images of a training run: its labels, its first batches, its curves."""

from __future__ import annotations

import logging
from pathlib import Path

from utils.core.callbacks import BatchEnd, Callback, TrainEnd, TrainStart
from utils.loggers.results_csv import RESULTS_CSV
from utils.loggers.routing_csv import ROUTING_CSV
from utils.plots import plot_batch, plot_label_correlogram, plot_labels, plot_results, plot_routing

logger = logging.getLogger(__name__)

_BATCHES = 3


class PlotsLogger(Callback):
    """Draws labels.jpg and labels_correlogram.jpg at the start of a new run, train_batch0.jpg to train_batch2.jpg of
    its first batches, and results.png (with the temperature) and routing.png (of a dynamic model) at the end.
    """

    def __init__(self) -> None:
        self._save_dir = Path()
        self._names: tuple[str, ...] = ()
        self._batches_left = 0

    def on_train_start(self, event: TrainStart) -> None:
        """Draw the labels of a new run."""
        self._save_dir, self._names = event.save_dir, event.names
        self._batches_left = 0
        if event.resumed_epoch == 0:
            self._batches_left = _BATCHES
            plot_labels(event.labels, event.names, event.save_dir / "labels.jpg")
            plot_label_correlogram(event.labels, event.save_dir / "labels_correlogram.jpg")

    def on_train_batch_end(self, event: BatchEnd) -> None:
        """Draw the first batches with their augmentation."""
        if self._batches_left == 0:
            return
        file = self._save_dir / f"train_batch{_BATCHES - self._batches_left}.jpg"
        plot_batch(event.batch.images, event.batch.targets, event.batch.paths, file, self._names)
        self._batches_left -= 1

    def on_train_end(self, event: TrainEnd) -> None:
        """Draw results and routing over the epochs, if there is one."""
        for name, draw in ((RESULTS_CSV, plot_results), (ROUTING_CSV, plot_routing)):
            if event.epochs_run > 0 and (event.save_dir / name).exists():
                draw(event.save_dir / name)
