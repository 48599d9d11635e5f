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
    losses, seconds = progress.mean_losses, progress.seconds
    event = EpochEnd(epoch=progress.epoch, losses=losses, learning_rates=rates, seconds=seconds)
    s.callbacks.on_train_epoch_end(event)


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
        f"stopped early after epoch {s.state.epochs_done} of {s.options.epochs}: no fitness as good as in epoch "
        f"{s.state.early_stopping.best_epoch + 1} for {counted(s.options.patience, 'epoch')}; to train on: "
        f"{s.resume_command} --patience N (0: to the last epoch)"
    )


def cure_of_fault(s: Session) -> str:
    """Say what to do about a loss or gradient that is not finite."""
    saved = "weights/last.pt is unchanged" if s.saver.last.exists() else "nothing has been saved yet"
    precision = ", --no-amp" if s.amp else ""
    return (
        f"{saved}; try a lower lr0 or grad_clip: 10 in the --hyp file{precision}, or --skip-nonfinite N to skip up to "
        "N such batches"
    )
