"""Train a detector.

    python train.py --cfg yolov5n_dynamic.yaml --data my.yaml --imgsz 640

``prepare`` checks the input and builds everything, ``fit`` is the loop over epochs, ``finish`` strips the checkpoints
and evaluates the best one. Whatever changes weights is a line of ``fit`` or ``train_epoch``. Ctrl-C, SIGTERM and SIGHUP
end the loop after the step in progress; ``--resume`` continues with the next one.

    torchrun --nproc_per_node=2 train.py --batch-size 64 ...

starts a process per GPU. Each of them runs this file, with its part of every batch; they meet in the lines with
``ranks``, which do nothing in a run of one process.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from utils.config.cli import answer_early, run_script
from utils.config.options import TrainOptions

answer_early(TrainOptions, __name__)

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from models.dynamic import set_temperature, temperatures
from models.user_modules import load_modules
from utils.config.keywords import as_options, options_from
from utils.core.dist import Ranks, connect_ranks
from utils.core.image import to_model_input
from utils.core.memory import describe_memory_in_use
from utils.core.output import unlock_folder
from utils.core.seed import torch_settings_restored
from utils.core.v61 import import_served
from utils.datasets.loader import Batch
from utils.training.checkpoints import save_epoch, save_in_epoch
from utils.training.compiled import Network
from utils.training.epoch_batches import batches_until_stopped
from utils.training.evolve import LastRow, TrialStopped, evolve
from utils.training.finish import finish, report_end, resume_hints, saved_on_loader_failure
from utils.training.image_weights import weights_for_epoch
from utils.training.multi_scale import resize_batch
from utils.training.report import (
    cure_of_fault,
    report_batch,
    report_early_stop,
    report_epoch,
    report_epoch_start,
    report_start,
    report_trained,
)
from utils.training.schedule import set_learning_rates, temperature_at
from utils.training.session import Session
from utils.training.setup import prepare
from utils.training.validation import validate


def fit(s: Session) -> bool:
    """Train the epochs that are left, until early stopping or a signal ends the run.

    Returns:
        False when a signal ended it inside an epoch.
    """
    for epoch in range(s.state.epochs_done, 0 if s.state.stopped_early else s.options.epochs):
        report_epoch_start(s, epoch)
        if s.options.image_weights:
            boxes = [record.boxes for record in s.records]
            s.sampler.set_weights(s.ranks.on_main(weights_for_epoch, boxes, s.state.class_map))
        s.sampler.set_epoch(epoch, s.state.start_epoch(epoch).batches)
        train_epoch(s, epoch)
        last, validation = epoch + 1 == s.options.epochs, None
        if (last or not s.options.noval) and not s.stop.requested:
            s.ranks.spread(s.ema.model)  # each rank has averaged other batch norm statistics
            validation = validate(s, epoch)
        if s.stop.requested:
            s.ranks.on_main(save_in_epoch, s)  # a resumed run repeats a validation that was stopped
            return False
        s.state.epochs_done = epoch + 1
        if validation is not None:
            over = s.state.early_stopping(epoch, validation.fitness)
            s.state.stopped_early = s.ranks.share(over) and not last
        report_epoch(s, validation)
        s.ranks.on_main(save_epoch, s, final=last or s.state.stopped_early)
        if s.state.stopped_early:
            report_early_stop(s)
            break
    return True


def train_epoch(s: Session, epoch: int) -> None:
    """Train on the batches of an epoch that are left. Only here the optimizer makes steps."""
    s.guard.start_training()
    progress = s.state.start_epoch(epoch)
    start = time.perf_counter() - progress.seconds
    title, batches = f"epoch {epoch + 1}/{s.options.epochs}", batches_until_stopped(s.loader, s.stop)
    done, hidden = progress.batches, not s.ranks.main
    bar = tqdm(batches, title, len(s.loader), leave=False, initial=done, dynamic_ncols=True, disable=hidden)
    for batch in bar:
        iteration = epoch * len(s.loader) + progress.batches
        set_learning_rates(s.optimizer, s.plan, iteration, epoch, s.hyp, s.options.cos_lr)
        cool_down(s, iteration)
        images = to_model_input(batch.images, s.device, layout=s.layout)
        if s.options.multi_scale:
            images = resize_batch(images, s.imgsz, int(s.model.stride.max()), (s.options.seed, iteration))
        with s.guard.batch(batch.count):
            predictions = forward(s, s.network, images)
            items = s.loss(predictions, batch.targets.to(s.device), batch.count)
            fault = s.guard.check_loss(items, partial(forward, s, s.model, images))
            if not fault:
                # The loss grows with the batch: united images stand for four. Backward averages over the ranks.
                s.scaler.scale(items.total * 4 if s.options.quad else items.total).backward()
                fault = s.guard.check_gradients()
        if not fault and iteration - s.state.last_step >= s.plan.accumulate_at(iteration):
            if s.hyp.grad_clip:
                s.scaler.unscale_(s.optimizer)
                clip_grad_norm_(s.model.parameters(), s.hyp.grad_clip)
            s.scaler.step(s.optimizer)
            s.scaler.update()
            s.guard.check_scale(s.scaler)
            s.optimizer.zero_grad(set_to_none=True)
            s.ema.update(s.model)
            s.state.last_step = iteration
        progress.batches, progress.seconds = progress.batches + 1, time.perf_counter() - start
        if fault:
            skip_batch(s, batch, fault)
        else:
            report_batch(s, batch, progress.add_losses(items), iteration)
            losses = "box {:.4f} obj {:.4f} cls {:.4f} ".format(*progress.mean_losses)
            bar.set_postfix_str(losses + describe_memory_in_use(s.device), refresh=False)
        s.stop.armed = True  # from now on there is something to save
        if s.saver.due_in_epoch(progress.batches):
            s.ranks.on_main(save_in_epoch, s)
    if not s.stop.requested:
        report_trained(s)


def forward(s: Session, network: Network, images: Tensor) -> list[Tensor]:
    """Return the predictions [B, na, ny, nx, nc+5] of each level, in mixed precision if the run uses it."""
    with torch.autocast(s.device.type, enabled=s.amp):
        return network(images)


def cool_down(s: Session, iteration: int) -> None:
    """Set the temperature of dynamic layers for one iteration; that of the EMA model is set too, never averaged."""
    temperature = temperature_at(iteration / len(s.loader), s.options.epochs, s.hyp)
    if temperature != s.state.temperature and temperatures(s.model):
        set_temperature(s.model, temperature)
        set_temperature(s.ema.model, temperature)
    s.state.temperature = temperature


def skip_batch(s: Session, batch: Batch, fault: str) -> None:
    """Drop the gradients and statistics of a faulty batch, or end the run while the last checkpoint is valid."""
    progress = s.state.progress
    place = f"epoch {progress.epoch + 1}, batch {progress.batches} of {len(s.loader)} (with {batch.paths[0]})"
    s.guard.skip(fault, place, cure_of_fault(s), s.state.skipped)
    s.state.count_skipped()
    s.optimizer.zero_grad(set_to_none=True)


def train_trial(options: TrainOptions) -> Mapping[str, float]:
    """Train with one set of hyper-parameters of ``--evolve``; return the metrics of the last epoch."""
    s = prepare(options)
    last = LastRow()
    s.callbacks.add(last)
    report_start(s)
    with s.stop:
        complete = fit(s)
    unlock_folder(s.save_dir)
    if not complete:
        raise TrialStopped
    report_end(s, has_best=False)
    return last.row


def main(options: TrainOptions | argparse.Namespace) -> int:
    """Train; returns the exit code."""
    options = as_options(TrainOptions, options)
    try:
        # this process alone, or with the others that torchrun started
        with torch_settings_restored(), connect_ranks(options.local_rank) as ranks:
            return train(options, ranks)
    finally:
        unlock_folder()


def train(options: TrainOptions, ranks: Ranks) -> int:
    """Train in one of the processes of a run; returns the exit code."""
    if not ranks.main:
        logging.getLogger().setLevel(logging.ERROR)
    load_modules(options.modules)
    if options.evolve is not None:
        return evolve(options, train_trial)
    s = prepare(options, ranks)
    report_start(s)
    with resume_hints(s):
        with s.stop, saved_on_loader_failure(s):
            complete = fit(s)
        return finish(s, complete)


def run(**options: Any) -> None:
    """Train from Python, with the options by their names: ``train.run(data="my.yaml", imgsz=320)``."""
    main(options_from(TrainOptions, options))


def __getattr__(name: str) -> Any:
    """Names that scripts import from here, see ``utils/compat``."""
    return import_served("train", name)


if __name__ == "__main__":
    sys.exit(run_script(main, TrainOptions))
