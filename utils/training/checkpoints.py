"""Saving a run in checkpoints, and restoring it from one."""

from __future__ import annotations

import logging

from utils.checkpoint import Checkpoint
from utils.core.callbacks import CheckpointSaved
from utils.training.finite_checks import check_weights_finite
from utils.training.optimizer_state import (
    load_gradients,
    load_optimizer_state,
    load_random_states,
    optimizer_state,
    pending_gradients,
    random_states,
)
from utils.training.schedule import describe_change
from utils.training.session import Session

LOG = logging.getLogger(__name__)


def save_epoch(s: Session, final: bool) -> None:
    """Write last.pt after an epoch, and best.pt when the epoch is the best so far.

    Args:
        s: the run.
        final: the epoch is the last one.
    """
    epoch = s.state.epochs_done - 1
    check_weights_finite(s.model, s.ema.model)
    if s.saver.skips_epoch(final):
        return
    best = s.state.early_stopping.best_epoch == epoch or not s.state.best_written
    s.state.best_written = True
    if s.saver.write_epoch(make_checkpoint(s), epoch, best):
        s.callbacks.on_model_save(CheckpointSaved(path=s.saver.last, epoch=epoch, best=best))


def save_in_epoch(s: Session) -> None:
    """Write last.pt inside an epoch: a resumed run continues with the next batch."""
    check_weights_finite(s.model, s.ema.model)
    s.saver.write(s.saver.last, make_checkpoint(s))


def make_checkpoint(s: Session) -> Checkpoint:
    """Return the whole run in its present state; the tensors are those in training."""
    return Checkpoint(
        model_yaml=s.model.yaml,
        nc=s.model.nc,
        names=list(s.model.names),
        stride=s.model.stride.tolist(),
        model=s.model.state_dict(),
        ema=s.ema.model.state_dict(),
        ema_updates=s.ema.updates,
        optimizer=optimizer_state(s.optimizer, s.model),
        scaler=s.scaler.state_dict(),
        train_state={
            **s.state.to_checkpoint(),
            "gradients": pending_gradients(s.model),
            "warmup": s.plan.warmup,
            "images": len(s.records),
            "processes": s.ranks.size,
            "amp": s.amp,
        },
        imgsz=s.imgsz,
        hyp=s.hyp.to_dict(),
        options=dict(s.saver.recorded),
        rng=random_states(s.device),
    )


def restore(s: Session, checkpoint: Checkpoint) -> None:
    """Load all tensors of a checkpoint, and log what differs from the run that wrote it."""
    state = checkpoint.train_state
    assert checkpoint.ema is not None and checkpoint.optimizer is not None
    s.model.load_state_dict(checkpoint.model)
    s.ema.model.load_state_dict(checkpoint.ema)
    s.ema.updates = checkpoint.ema_updates
    load_optimizer_state(s.optimizer, s.model, checkpoint.optimizer)
    if bool(checkpoint.scaler) == s.scaler.is_enabled():  # otherwise accumulated gradients have another scale
        load_gradients(s.model, state["gradients"])
        s.scaler.load_state_dict(checkpoint.scaler or {})
    load_random_states(checkpoint.rng, s.device)
    _log_differences(s, checkpoint)


def _log_differences(s: Session, checkpoint: Checkpoint) -> None:
    epochs, state = checkpoint.options["epochs"], checkpoint.train_state
    if epochs != s.options.epochs:
        LOG.info(describe_change(epochs, s.options.epochs, s.state.first_epoch, s.hyp, s.options.cos_lr))
    if (processes := state.get("processes", s.ranks.size)) != s.ranks.size:
        joint = s.saver.recorded["sync_bn"]
        norms = "" if joint else "; batch norm, without --sync-bn, sees the images of each process"
        LOG.info("%d process(es) resume a run of %d: its batches and gradients stay%s", s.ranks.size, processes, norms)
    if (images := state.get("images", len(s.records))) != len(s.records):
        LOG.warning(
            f"the training set has {len(s.records)} images now, {images} when this run was saved: it will not be the "
            "same run"
        )
