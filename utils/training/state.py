"""What changes during a run and is recorded in its checkpoints, apart from tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.loss import LossItems
from utils.training.early_stop import EarlyStopping


@dataclass
class EpochProgress:
    """How much of an epoch is done.

    Attributes:
        epoch: from 0.
        batches: how many of its batches are done.
        skipped: how many of these were skipped, because their loss or gradient was not finite.
        loss_sums: [3] box, objectness and class loss, summed over the others.
        seconds: time they took.
    """

    epoch: int = 0
    batches: int = 0
    skipped: int = 0
    loss_sums: Tensor = field(default_factory=lambda: torch.zeros(3))
    seconds: float = 0.0

    @property
    def mean_losses(self) -> tuple[float, float, float]:
        """Mean box, objectness and class loss so far; not-a-number before the first batch."""
        count = self.batches - self.skipped
        box, obj, cls = (self.loss_sums / count).tolist() if count else [math.nan] * 3
        return box, obj, cls

    def add_losses(self, items: LossItems) -> tuple[float, float, float]:
        """Add the losses of a batch, and return them."""
        parts = torch.stack([items.box, items.obj, items.cls]).detach().cpu()
        self.loss_sums += parts
        box, obj, cls = parts.tolist()
        return box, obj, cls

    def to_checkpoint(self) -> dict[str, Any]:
        """Return plain values; the epoch follows from those of the run."""
        sums = self.loss_sums.tolist()
        return {"batches": self.batches, "skipped": self.skipped, "sums": sums, "seconds": self.seconds}

    @classmethod
    def from_checkpoint(cls, epoch: int, values: Mapping[str, Any]) -> EpochProgress:
        """Restore what :meth:`to_checkpoint` returned."""
        return cls(epoch, values["batches"], values["skipped"], torch.tensor(values["sums"]), values["seconds"])


@dataclass
class TrainState:
    """State of a run.

    Attributes:
        early_stopping: best epoch and fitness so far.
        class_map: [nc] mAP@.5:.95 of each class in the last validation; zeros before the first.
        progress: of the epoch in progress, or of the last one when it is over.
        epochs_done: whole epochs, with their validation.
        last_step: iteration of the last optimizer step; -1 before the first.
        skipped: batches skipped in the whole run.
        stopped_early: early stopping has ended the run.
        best_written: the run has written its best.pt; its folder may contain one of an older run.
        first_epoch: epoch at which this process started. Not recorded.
        temperature: of the dynamic layers; None before the first batch. Not recorded.
    """

    early_stopping: EarlyStopping
    class_map: np.ndarray
    progress: EpochProgress = field(default_factory=EpochProgress)
    epochs_done: int = 0
    last_step: int = -1
    skipped: int = 0
    stopped_early: bool = False
    best_written: bool = False
    first_epoch: int = 0
    temperature: float | None = None

    def start_epoch(self, epoch: int) -> EpochProgress:
        """Return the progress of an epoch: none, unless the run was resumed inside it."""
        if self.progress.epoch != epoch:
            self.progress = EpochProgress(epoch)
        return self.progress

    def count_skipped(self) -> None:
        """Count a batch that was skipped."""
        self.progress.skipped += 1
        self.skipped += 1

    def to_checkpoint(self) -> dict[str, Any]:
        """Return plain values, with the place inside an epoch when one is in progress."""
        values = {
            "epoch": self.epochs_done - 1,
            "last_step": self.last_step,
            "early_stop": self.early_stopping.state_dict(),
            "class_map": self.class_map.tolist(),
            "skipped": self.skipped,
            "stopped_early": self.stopped_early,
            "best_written": self.best_written,
        }
        if self.progress.epoch >= self.epochs_done:
            values["position"] = self.progress.to_checkpoint()
        return values

    @classmethod
    def from_checkpoint(cls, values: Mapping[str, Any], patience: int, extended: bool = False) -> TrainState:
        """Restore what :meth:`to_checkpoint` returned.

        Args:
            values: of the checkpoint; those of earlier versions lack some.
            patience: of early stopping.
            extended: more epochs or another patience was requested, so an early stop no longer counts.
        """
        done, stopped = int(values["epoch"]) + 1, bool(values.get("stopped_early"))
        early_stopping = EarlyStopping(patience)
        early_stopping.load_state_dict(values["early_stop"])
        if extended and stopped:
            early_stopping.since = done
        progress = EpochProgress.from_checkpoint(done, values["position"]) if "position" in values else EpochProgress()
        return cls(
            early_stopping,
            np.array(values["class_map"]),
            progress,
            epochs_done=done,
            last_step=values["last_step"],
            skipped=values.get("skipped", 0),
            stopped_early=stopped and not extended,
            best_written=values.get("best_written", True),
            first_epoch=done,
        )
