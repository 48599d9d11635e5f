"""Train a detector.

    python train.py --cfg yolov5n_dynamic.yaml --data my.yaml --imgsz 640

From top to bottom: ``prepare`` checks the input and builds everything, ``fit`` is the loop, ``finish`` strips the
checkpoints and scores the best one. Whatever changes weights is a line in ``fit`` or ``train_epoch``. Ctrl-C, SIGTERM
and SIGHUP end the loop after the step in progress; ``--resume`` goes on with the next one.

    torchrun --nproc_per_node=2 train.py --batch-size 64 ...

starts a process per GPU. Each of them runs this file, with its part of every batch; where they meet is in the lines
with ``ranks``, which do nothing in a run of one process.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from models.dynamic import get_temperature, set_temperature
from models.routing import entropy_metrics
from models.user_modules import load_modules
from utils.checkpoint import load_model
from utils.config.cli import EXIT_INPUT, run_script
from utils.config.keywords import as_options, options_from
from utils.config.options import TrainOptions
from utils.core.callbacks import (
    BatchEnd,
    CheckpointSaved,
    EpochEnd,
    EpochStart,
    FitEpochEnd,
    TrainEnd,
    TrainStart,
    ValEnd,
)
from utils.core.dist import Ranks, connect_ranks
from utils.core.errors import InputError
from utils.core.image import to_model_input
from utils.core.memory import describe_memory_in_use, describe_peak_memory
from utils.core.names import counted
from utils.core.output import unlock_folder
from utils.core.seed import torch_settings_restored
from utils.core.v61 import import_served
from utils.datasets.loader import Batch
from utils.datasets.loader_errors import NoBatchError, loader_failure
from utils.evaluation import EvalResult
from utils.evaluation.observers import BatchPlots, RoutingObserver
from utils.evaluation.report import log_table, save_plots
from utils.loss import LossItems
from utils.metrics import fitness
from utils.training.compiled import Network
from utils.training.distributed import mark_blank
from utils.training.epoch_progress import BreakOff, Position, loading, until_stopped
from utils.training.evolve import LastRow, TrialStopped, evolve
from utils.training.image_weights import weights_for_epoch
from utils.training.multi_scale import resize_batch
from utils.training.saver import keep_resumable, strip
from utils.training.schedule import learning_rates, temperature_at, warm_up
from utils.training.session import Session
from utils.training.setup import prepare

LOG = logging.getLogger(__name__)


def fit(s: Session) -> int:
    """Run the epochs that are left, or until a signal asks to stop; returns how many were completed."""
    epoch = s.start_epoch - 1
    for epoch in range(s.start_epoch, 0 if s.stopped_early else s.options.epochs):
        temperature = temperature_at(epoch, s.options.epochs, s.hyp)
        s.callbacks.on_train_epoch_start(EpochStart(epoch=epoch, epochs=s.options.epochs, temperature=temperature))
        if s.options.image_weights:
            shares = s.ranks.on_main(weights_for_epoch, [r.boxes for r in s.records], s.maps)
            s.sampler.set_weights(shares)
        s.sampler.set_epoch(epoch, s.enter(epoch).batches)
        train_epoch(s, epoch)
        last = epoch + 1 == s.options.epochs
        result = validate(s, epoch) if (last or not s.options.noval) and not s.stop.requested else None
        if s.stop.requested:
            s.interrupted = True
            s.ranks.on_main(save_inside, s)  # a validation that was broken off is done anew
            return epoch - s.start_epoch
        rates = learning_rates(s.optimizer)
        row = figures(s.position, result, rates)
        if s.dynamic:
            row["temperature"] = get_temperature(s.ema.model) or 0.0
        row |= entropy_metrics(s.ema.model, s.routing if result is not None else ())
        s.stopped_early = s.ranks.share(judge(s, epoch, result)) and not last
        s.callbacks.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row=row))
        s.ranks.on_main(save, s, epoch, final=last or s.stopped_early)
        if s.stopped_early:
            LOG.info(
                "stopped early after epoch %d of %d: no fitness as good as in epoch %d for %s; to train on: "
                "%s --patience N (0: to the last epoch)",
                epoch + 1, s.options.epochs, s.stopper.best_epoch + 1, counted(s.options.patience, "epoch"),
                s.resume_command,
            )  # fmt: skip
            break
    return epoch + 1 - s.start_epoch


def train_epoch(s: Session, epoch: int) -> None:
    """One pass over the training set, or the rest of it: the only place where the optimizer steps."""
    s.model.train()
    s.frozen.hold()
    at = s.enter(epoch)
    start = time.perf_counter() - at.seconds
    batches = until_stopped(s.loader, s.stop)
    title = f"epoch {epoch + 1}/{s.options.epochs}"
    progress = tqdm(
        batches, title, len(s.loader), initial=at.batches, leave=False, dynamic_ncols=True, disable=not s.ranks.main
    )  # fmt: skip
    for batch in progress:
        iteration = epoch * len(s.loader) + at.batches
        accumulate = warm_up(s.optimizer, s.plan, iteration, epoch, s.hyp, s.options.cos_lr)
        cool(s, iteration)
        images = to_model_input(batch.images, s.device, layout=s.layout)
        if s.options.multi_scale:
            images = resize_batch(images, s.imgsz, int(s.model.stride.max()), (s.options.seed, iteration))
        s.watch.before_batch()
        if s.options.sync_bn:
            mark_blank(s.model, batch.count == 0)
        with s.norms.following():
            maps = forward(s, s.network, images)
            items = s.loss(maps, batch.targets.to(s.device), batch.count)
            fault = s.watch.of_loss(items.total, partial(forward, s, s.model, images), items.check)
            if not fault:
                # The loss grows with the batch: united images stand for four. Backward averages over the ranks.
                s.scaler.scale(items.total * 4 if s.options.quad else items.total).backward()
                fault = s.watch.of_gradient()
        if not fault and iteration - s.last_step >= accumulate:
            if s.hyp.grad_clip:
                s.scaler.unscale_(s.optimizer)
                clip_grad_norm_(s.model.parameters(), s.hyp.grad_clip)
            s.scaler.step(s.optimizer)
            s.scaler.update()
            s.watch.check_scale(s.scaler)
            s.optimizer.zero_grad(set_to_none=True)
            s.ema.update(s.model)
            s.last_step = iteration
        at.batches, at.seconds = at.batches + 1, time.perf_counter() - start
        if fault:
            leave_out(s, fault, batch)
        else:
            note(s, items, iteration, batch)
            progress.set_postfix_str(
                "box {:.4f} obj {:.4f} cls {:.4f} ".format(*at.means) + describe_memory_in_use(s.device)
            )
        s.stop.armed = True  # from here on there is something to save
        if s.options.save_steps and at.batches % s.options.save_steps == 0:
            s.ranks.on_main(save_inside, s)
    if not s.stop.requested:
        rates = tuple(learning_rates(s.optimizer).values())
        s.callbacks.on_train_epoch_end(
            EpochEnd(epoch=epoch, losses=at.means, learning_rates=rates, seconds=at.seconds)
        )  # fmt: skip


def cool(s: Session, iteration: int) -> None:
    """Set the temperature of one iteration on the model and on its average: set, never averaged."""
    temperature = temperature_at(iteration / len(s.loader), s.options.epochs, s.hyp)
    if s.dynamic and temperature != s.temperature:
        set_temperature(s.model, temperature)
        set_temperature(s.ema.model, temperature)  # which is what is scored and saved
        s.temperature = temperature


def forward(s: Session, network: Network, images: Tensor) -> list[Tensor]:
    """Maps [B, na, ny, nx, nc+5] of each level, in mixed precision if the run is."""
    with torch.autocast(s.device.type, enabled=s.amp):
        return network(images)


def note(s: Session, items: LossItems, iteration: int, batch: Batch) -> None:
    """Add the losses of a batch to those of the epoch, and tell the callbacks."""
    parts = torch.stack([items.box, items.obj, items.cls]).detach().cpu()
    at = s.position
    at.sums += parts
    losses = tuple(parts.tolist())
    s.callbacks.on_train_batch_end(
        BatchEnd(epoch=at.epoch, index=at.batches - 1, iteration=iteration, batch=batch, losses=losses)
    )  # fmt: skip


def leave_out(s: Session, fault: str, batch: Batch) -> None:
    """Go on without a batch that would spoil the weights, or stop while the last checkpoint is still sound."""
    place = f"epoch {s.position.epoch + 1}, batch {s.position.batches} of {len(s.loader)} (with {batch.paths[0]})"
    kept = "weights/last.pt is untouched" if s.last.exists() else "nothing has been saved yet"
    precision = ", --no-amp" if s.amp else ""
    s.watch.leave_out(
        fault, place,
        f"{kept}; try a lower lr0 or grad_clip: 10 in the --hyp file{precision}, or --skip-nonfinite N to leave out up "
        "to N such batches",
    )  # fmt: skip
    s.position.skipped += 1
    s.optimizer.zero_grad(set_to_none=True)


def validate(s: Session, epoch: int) -> EvalResult | None:
    """Score the averaged model; None when a signal came meanwhile."""
    s.ranks.spread(s.ema.model)  # each rank has averaged the batch norm statistics of its own images
    try:
        with loading(s.stop), RoutingObserver(s.ema.model, s.spec.nc, s.ranks) as routing:
            result = s.evaluator.run(s.ema.model, s.loss, [routing, BreakOff(s.stop), *s.observers])
    except (NoBatchError, RuntimeError):
        if s.stop.requested:
            return None
        raise
    s.maps, s.routing = result.maps(s.spec.nc), routing.figures()
    per_class = dict(zip(s.spec.names, s.maps.tolist()))
    s.callbacks.on_val_end(ValEnd(epoch=epoch, metrics=scores(result), per_class_ap=per_class, routing=s.routing))
    return result


def scores(result: EvalResult) -> dict[str, float]:
    """Figures of a validation under the column names of v6.1."""
    row = {"metrics/precision": result.precision, "metrics/recall": result.recall}
    row |= {"metrics/mAP_0.5": result.map50, "metrics/mAP_0.5:0.95": result.map}
    return row | dict(zip(("val/box_loss", "val/obj_loss", "val/cls_loss"), result.losses))


def figures(done: Position, result: EvalResult | None, rates: dict[str, float]) -> dict[str, float]:
    """The epoch's row of results.csv, with the column names of v6.1."""
    row = dict(zip(("train/box_loss", "train/obj_loss", "train/cls_loss"), done.means))
    if result is not None:
        row |= scores(result)
    row |= {"x/lr0": rates["no_decay"], "x/lr1": rates["decay"], "x/lr2": rates["bias"]}
    return row | {"seconds": done.seconds}


def judge(s: Session, epoch: int, result: EvalResult | None) -> bool:
    """Let early stopping note the fitness of an epoch; True when patience is at an end."""
    if result is None:
        return False
    value = float(fitness(np.array([[result.precision, result.recall, result.map50, result.map]]))[0])
    return s.stopper(epoch, value)


def save(s: Session, epoch: int, final: bool) -> None:
    """Write last.pt, and best.pt when this epoch is the best."""
    s.watch.check_state(s.ema.model)
    if s.options.nosave and (not final or s.options.evolve):
        return  # of a trial of --evolve only the figures are kept
    s.saver.retry(s.last)
    best = s.stopper.best_epoch == epoch or not s.best_written
    s.best_written = True
    checkpoint = s.checkpoint(epoch)
    if best:
        s.saver.write(s.best, checkpoint)
    if s.options.save_period > 0 and (epoch + 1) % s.options.save_period == 0:
        s.saver.write(s.weights_dir / f"epoch{epoch}.pt", checkpoint)
    if s.saver.write(s.last, checkpoint):
        s.callbacks.on_model_save(CheckpointSaved(path=s.last, epoch=epoch, best=best))


def save_inside(s: Session) -> None:
    """Write last.pt in the middle of an epoch: resumed, it goes on with the next batch."""
    s.watch.check_state(s.ema.model)
    s.saver.write(s.last, s.checkpoint(s.position.epoch - 1, inside=s.position))


def finish(s: Session, epochs_run: int) -> None:
    """Strip the checkpoints to what is needed for use and score the best one."""
    best = None
    # Without a best one no epoch ran, and whatever lies in the folder is another run's.
    if s.ranks.share(s.best_written and s.best.exists()):
        best = s.best
        s.ranks.on_main(strip, s.best)
        model = load_model(s.best, s.device)[0] if s.ranks.main else s.ema.model
        s.ranks.spread(model)
        LOG.info("scoring %s", s.best)
        plots = [BatchPlots(s.save_dir, s.spec.names)] if s.ranks.main else []
        result = s.evaluator.run(model, None, plots)
        s.ranks.on_main(report, s, result)
    s.callbacks.on_train_end(TrainEnd(save_dir=s.save_dir, best=best, epochs_run=epochs_run))


def report(s: Session, result: EvalResult) -> None:
    """Show how the best model scores, and end the run: up to here --resume would have come back and finished."""
    log_table(result, s.spec.names)
    save_plots(result, s.spec.names, s.save_dir)
    keep_resumable(s.last)
    strip(s.last)


def announce(s: Session) -> None:
    """Tell the callbacks that the run begins."""
    labels = np.concatenate([record.boxes for record in s.records])
    s.callbacks.on_train_start(
        TrainStart(
            save_dir=s.save_dir, epochs=s.options.epochs, names=s.spec.names, labels=labels, resumed_epoch=s.start_epoch
        )
    )  # fmt: skip


def trial(options: TrainOptions) -> Mapping[str, float]:
    """A run with one set of hyper-parameters of --evolve: the figures of its last epoch."""
    s = prepare(options)
    last = LastRow()
    s.callbacks.add(last)
    announce(s)
    with s.stop:
        fit(s)
    unlock_folder(s.save_dir)
    if s.interrupted:
        raise TrialStopped
    s.callbacks.on_train_end(TrainEnd(save_dir=s.save_dir, best=None, epochs_run=s.options.epochs - s.start_epoch))
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
    """Train in one of the processes of a run."""
    if not ranks.main:
        logging.getLogger().setLevel(logging.ERROR)
    load_modules(options.modules)
    if options.evolve is not None:
        return evolve(options, trial)
    s = prepare(options, ranks)
    announce(s)
    try:
        with s.stop:
            epochs_run = fit_or_save(s)
        return end(s, epochs_run)
    except (NoBatchError, RuntimeError) as error:
        reason = str(error) if isinstance(error, NoBatchError) else loader_failure(error)
        if ranks.lost(error):
            reason = "a process of this run is gone, why can only be seen there"
        if not reason:
            raise
        raise InputError(f"{reason}; then {how_to_go_on(s)}") from error
    except KeyboardInterrupt:
        LOG.info("stopped at once, without a save; %s", how_to_go_on(s))
        raise


def fit_or_save(s: Session) -> int:
    """Train; when the loader fails, what has been trained is saved before the error goes on."""
    try:
        return fit(s)
    except NoBatchError:
        if s.position.batches:
            s.ranks.on_main(save_inside, s)
        raise


def end(s: Session, epochs_run: int) -> int:
    """What follows the last epoch, or the signal to stop; returns the exit code."""
    LOG.info("peak memory: %s", describe_peak_memory(s.device))
    if not s.ranks.share(s.saver.retry()):
        LOG.error("error: no room for %s; what lies there is older", ", ".join(map(str, s.saver.unwritten)))
        return EXIT_INPUT
    if s.interrupted:
        done = f"epoch {s.position.epoch + 1} after {s.position.batches} of {counted(len(s.loader), 'batch')}"
        LOG.info("%s: stopped in %s; go on with: %s", s.stop.requested, done, s.resume_command)
    else:
        finish(s, epochs_run)
    return 0


def how_to_go_on(s: Session) -> str:
    """The command that goes on from the last save."""
    if s.last in s.saver.written or (not s.ranks.main and s.last.exists()):  # only rank 0 writes
        return f"go on with: {s.resume_command}"
    return "give the same command again: nothing has been saved since this start"


def run(**options: Any) -> None:
    """Train from Python, with the options by their names: ``train.run(data="my.yaml", imgsz=320)``."""
    main(options_from(TrainOptions, options))


def __getattr__(name: str) -> Any:
    """Names that scripts import from here, see ``utils/compat``."""
    return import_served("train", name)


if __name__ == "__main__":
    sys.exit(run_script(main, TrainOptions))
