"""One line per epoch in the log."""

from __future__ import annotations

import logging
import time
from collections import deque

from utils.core.callbacks import Callback, FitEpochEnd, TrainEnd, TrainStart
from utils.core.names import counted

logger = logging.getLogger(__name__)

# column of the results file -> (name in the line, format)
_SHOWN = {
    "train/box_loss": ("box", ".4f"),
    "train/obj_loss": ("obj", ".4f"),
    "train/cls_loss": ("cls", ".4f"),
    "metrics/precision": ("P", ".3f"),
    "metrics/recall": ("R", ".3f"),
    "metrics/mAP_0.5": ("mAP50", ".3f"),
    "metrics/mAP_0.5:0.95": ("mAP50-95", ".3f"),
    "temperature": ("T", "g"),
    "seconds": ("s", ".1f"),
}


_RECENT = 5  # epochs whose mean time gives the time left


def duration(seconds: float) -> str:
    """``seconds`` as a short text: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class ConsoleLogger(Callback):
    """Logs the losses, the metrics and the time of every epoch in one line, and where the results are at the end."""

    def __init__(self) -> None:
        self._epochs = 0
        self._ends: deque[float] = deque(maxlen=_RECENT + 1)  # of the start and the last epochs, in seconds

    def on_train_start(self, event: TrainStart) -> None:
        """Log where the run writes."""
        self._epochs = event.epochs
        self._ends.append(time.monotonic())
        logger.info("writing to %s", event.save_dir)

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """Log the line of an epoch, with the metrics that it has."""
        values = [f"{name} {event.row[key]:{style}}" for key, (name, style) in _SHOWN.items() if key in event.row]
        # Epochs are counted from 0 in files and from 1 in the log, so that the last line reads 300/300.
        self._ends.append(time.monotonic())
        if left := self._epochs - event.epoch - 1:
            mean = (self._ends[-1] - self._ends[0]) / max(1, len(self._ends) - 1)
            values.append(f"{duration(left * mean)} left")
        logger.info("epoch %d/%d  %s", event.epoch + 1, self._epochs, "  ".join(values))

    def on_train_end(self, event: TrainEnd) -> None:
        """Log where the results are."""
        done = f"{counted(event.epochs_run, 'epoch')} done"
        logger.info("%s, results in %s", done, event.save_dir)
        if event.best is not None:
            logger.info("best checkpoint: %s", event.best)
