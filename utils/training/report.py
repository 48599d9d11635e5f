"""What a run reports to its callbacks and to the log."""

from __future__ import annotations

import logging

import numpy as np

from models.dynamic import get_temperature
from models.routing import entropy_metrics
from utils.core.callbacks import BatchEnd, EpochEnd, EpochStart, FitEpochEnd, TrainStart
from utils.core.names import counted
from utils.datasets.loader import Batch
from utils.training.schedule import learning_rates, temperature_at
from utils.training.session import Session
from utils.training.validation import Validation

LOG = logging.getLogger(__name__)


def report_start(s: Session) -> None:
    """Report that the run begins."""
    s.callbacks.on_train_start(
        TrainStart(
            save_dir=s.save_dir,
            epochs=s.options.epochs,
            names=tuple(s.model.names),
            labels=np.concatenate([record.boxes for record in s.records]),
            resumed_epoch=s.state.first_epoch,
        )
    )


def report_epoch_start(s: Session, epoch: int) -> None:
    """Report that an epoch begins."""
    temperature = temperature_at(epoch, s.options.epochs, s.hyp)
    s.callbacks.on_train_epoch_start(EpochStart(epoch=epoch, epochs=s.options.epochs, temperature=temperature))


def report_batch(s: Session, batch: Batch, losses: tuple[float, ...], iteration: int) -> None:
    """Report a batch that was trained on."""
    progress = s.state.progress
    s.callbacks.on_train_batch_end(
        BatchEnd(epoch=progress.epoch, index=progress.batches - 1, iteration=iteration, batch=batch, losses=losses)
    )


def report_trained(s: Session) -> None:
    """Report that the training part of an epoch is over."""
    progress, rates = s.state.progress, tuple(learning_rates(s.optimizer).values())
    s.callbacks.on_train_epoch_end(
        EpochEnd(
            epoch=progress.epoch, losses=progress.mean_losses, learning_rates=rates, seconds=progress.seconds
        )
    )  # fmt: skip


def report_epoch(s: Session, validation: Validation | None) -> None:
    """Report the row of results.csv of an epoch, with the column names of v6.1."""
    progress, rates = s.state.progress, learning_rates(s.optimizer)
    row = dict(zip(("train/box_loss", "train/obj_loss", "train/cls_loss"), progress.mean_losses))
    if validation is not None:
        row |= validation.metrics
    row |= {"x/lr0": rates["no_decay"], "x/lr1": rates["decay"], "x/lr2": rates["bias"], "seconds": progress.seconds}
    temperature = get_temperature(s.ema.model)
    if temperature is not None:
        row["temperature"] = temperature
    row |= entropy_metrics(s.ema.model, validation.routing if validation else ())
    s.callbacks.on_fit_epoch_end(FitEpochEnd(epoch=progress.epoch, row=row))


def report_early_stop(s: Session) -> None:
    """Log why the run ends before its last epoch, and how to continue it."""
    LOG.info(
        "stopped early after epoch %d of %d: no fitness as good as in epoch %d for %s; to train on: "
        "%s --patience N (0: to the last epoch)",
        s.state.epochs_done, s.options.epochs, s.state.early_stopping.best_epoch + 1,
        counted(s.options.patience, "epoch"),
        s.resume_command,
    )  # fmt: skip


def cure_of_fault(s: Session) -> str:
    """Say what to do about a loss or gradient that is not finite."""
    saved = "weights/last.pt is unchanged" if s.saver.last.exists() else "nothing has been saved yet"
    precision = ", --no-amp" if s.amp else ""
    return (
        f"{saved}; try a lower lr0 or grad_clip: 10 in the --hyp file{precision}, or --skip-nonfinite N to skip up to "
        "N such batches"
    )
