"""Train a detector.

    python train.py --cfg yolov5n_dynamic.yaml --data my.yaml --imgsz 640

From top to bottom: ``prepare`` checks the input and builds everything, ``fit`` is the loop, ``finish`` strips the
checkpoints and scores the best one. Whatever changes weights is a line in ``fit`` or ``train_epoch``.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.dynamic import set_temperature
from models.routing import entropy_figures
from models.user_modules import load_modules, modules_argument
from utils.callbacks import BatchEnd, CheckpointSaved, EpochEnd, EpochStart, FitEpochEnd, TrainEnd, TrainStart, ValEnd
from utils.checkpoint import load_model, save_checkpoint
from utils.checkpoint.format import strip_checkpoint
from utils.config.cli import run_script
from utils.config.keywords import options_from
from utils.config.options import TrainOptions
from utils.datasets.loader import Batch
from utils.errors import InputError
from utils.evaluation import EvalResult
from utils.evaluation.observers import BatchPlots, RoutingObserver
from utils.evaluation.report import log_table, save_plots
from utils.image import to_model_input
from utils.metrics import fitness
from utils.training.image_weights import weights_for_epoch
from utils.training.multi_scale import resize_batch
from utils.training.schedule import learning_rates, temperature_at, warm_up
from utils.training.session import Session, prepare

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochLosses:
    """Means over the epoch, gains included."""

    box: float
    obj: float
    cls: float
    seconds: float


def fit(s: Session) -> int:
    """Run the epochs that are left; returns how many ran."""
    epoch = s.start_epoch - 1
    for epoch in range(s.start_epoch, s.options.epochs):
        temperature = temperature_at(epoch, s.options.epochs, s.hyp)
        if s.dynamic:
            set_temperature(s.model, temperature)
            set_temperature(s.ema.model, temperature)  # set, never averaged: the EMA is what is scored and saved
        s.callbacks.on_train_epoch_start(EpochStart(epoch=epoch, epochs=s.options.epochs, temperature=temperature))
        if s.options.image_weights:
            s.sampler.set_weights(weights_for_epoch([r.boxes for r in s.records], s.maps))
        s.sampler.set_epoch(epoch)
        losses = train_epoch(s, epoch)
        rates = learning_rates(s.optimizer)
        last = epoch + 1 == s.options.epochs
        result = validate(s, epoch) if last or not s.options.noval else None
        row = figures(losses, result, rates)
        if s.dynamic:
            row["temperature"] = temperature
        row |= entropy_figures(s.ema.model, s.routing if result is not None else ())
        stop = judge(s, epoch, result)
        s.callbacks.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row=row))
        save(s, epoch, final=last or stop)
        if stop:
            LOG.info("no better fitness for %d epochs: stopped early (--patience 0 never stops)", s.options.patience)
            break
    return epoch + 1 - s.start_epoch


def train_epoch(s: Session, epoch: int) -> EpochLosses:
    """One pass over the training set: the only place where the optimizer steps."""
    s.model.train()
    s.frozen.hold()
    sums, start, cuda = torch.zeros(3), time.perf_counter(), s.device.type == "cuda"
    progress = tqdm(s.loader, desc=f"epoch {epoch + 1}/{s.options.epochs}", leave=False, dynamic_ncols=True)
    for index, batch in enumerate(progress):
        iteration = epoch * len(s.loader) + index
        accumulate = warm_up(s.optimizer, s.plan, iteration, epoch, s.hyp, s.options.cos_lr)
        images = to_model_input(batch.images, s.device)
        if s.options.multi_scale:
            images = resize_batch(images, s.imgsz, int(s.model.stride.max()), (s.options.seed, iteration))
        with torch.autocast(s.device.type, enabled=cuda):
            maps = s.model(images)
        items = s.loss(maps, batch.targets.to(s.device))
        check_finite(items.total, epoch, index, batch)
        s.scaler.scale(items.total).backward()
        if iteration - s.last_step >= accumulate:
            s.scaler.step(s.optimizer)
            s.scaler.update()
            s.optimizer.zero_grad(set_to_none=True)
            s.ema.update(s.model)
            s.last_step = iteration
        parts = torch.stack([items.box, items.obj, items.cls]).detach().cpu()
        sums += parts
        mean = (sums / (index + 1)).tolist()
        progress.set_postfix_str(f"box {mean[0]:.4f} obj {mean[1]:.4f} cls {mean[2]:.4f} {memory(s.device)}")
        s.callbacks.on_train_batch_end(
            BatchEnd(epoch=epoch, index=index, iteration=iteration, batch=batch, losses=tuple(parts.tolist()))
        )
    box, obj, cls = (sums / len(s.loader)).tolist()
    seconds = time.perf_counter() - start
    rates = tuple(learning_rates(s.optimizer).values())
    s.callbacks.on_train_epoch_end(EpochEnd(epoch=epoch, losses=(box, obj, cls), learning_rates=rates, seconds=seconds))
    return EpochLosses(box, obj, cls, seconds)


def check_finite(total: Tensor, epoch: int, index: int, batch: Batch) -> None:
    """A loss that is not a number would spoil the weights for good: stop while the last checkpoint is still sound."""
    if not torch.isfinite(total):
        raise InputError(
            f"the loss became {total.item()} in epoch {epoch + 1}, batch {index} (first picture {batch.paths[0]}); "
            "weights/last.pt is untouched; try a lower lr0 in the --hyp file"
        )


def memory(device: torch.device) -> str:
    """Memory in use, for the progress bar."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.memory_reserved(device) / 1e9:.1f} GB"
    try:
        import resource  # not on Windows
    except ImportError:
        return ""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return f"RAM {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GB"


def validate(s: Session, epoch: int) -> EvalResult:
    """Score the averaged model."""
    with RoutingObserver(s.ema.model, s.spec.nc) as routing:
        result = s.evaluator.run(s.ema.model, s.loss, [routing])
    s.maps, s.routing = result.maps(s.spec.nc), routing.figures()
    per_class = dict(zip(s.spec.names, s.maps.tolist()))
    s.callbacks.on_val_end(ValEnd(epoch=epoch, metrics=scores(result), per_class_ap=per_class, routing=s.routing))
    return result


def scores(result: EvalResult) -> dict[str, float]:
    """Figures of a validation under the column names of v6.1."""
    row = {"metrics/precision": result.precision, "metrics/recall": result.recall}
    row |= {"metrics/mAP_0.5": result.map50, "metrics/mAP_0.5:0.95": result.map}
    return row | dict(zip(("val/box_loss", "val/obj_loss", "val/cls_loss"), result.losses))


def figures(losses: EpochLosses, result: EvalResult | None, rates: dict[str, float]) -> dict[str, float]:
    """The epoch's row of results.csv, with the column names of v6.1."""
    row = {"train/box_loss": losses.box, "train/obj_loss": losses.obj, "train/cls_loss": losses.cls}
    if result is not None:
        row |= scores(result)
    row |= {"x/lr0": rates["no_decay"], "x/lr1": rates["decay"], "x/lr2": rates["bias"]}
    return row | {"seconds": losses.seconds}


def judge(s: Session, epoch: int, result: EvalResult | None) -> bool:
    """Let early stopping note the fitness of an epoch; True when patience is at an end."""
    if result is None:
        return False
    value = float(fitness(np.array([[result.precision, result.recall, result.map50, result.map]]))[0])
    return s.stopper(epoch, value)


def save(s: Session, epoch: int, final: bool) -> None:
    """Write last.pt, and best.pt when this epoch is the best."""
    if s.options.nosave and not final:
        return
    checkpoint = s.checkpoint(epoch)
    save_checkpoint(s.last, checkpoint)
    best = s.stopper.best_epoch == epoch or not s.best_written
    if best:
        save_checkpoint(s.best, checkpoint)
        s.best_written = True
    if s.options.save_period > 0 and (epoch + 1) % s.options.save_period == 0:
        save_checkpoint(s.weights_dir / f"epoch{epoch}.pt", checkpoint)
    s.callbacks.on_model_save(CheckpointSaved(path=s.last, epoch=epoch, best=best))


def finish(s: Session, epochs_run: int) -> None:
    """Strip the checkpoints to what is needed for use and score the best one."""
    best = None
    if s.best_written:  # else no epoch ran, and whatever lies in the folder is another run's
        for path in (s.last, s.best):
            LOG.info("%s: stripped to %.1f MB", path, strip_checkpoint(path))
        best = s.best
        model, _ = load_model(s.best, s.device)
        LOG.info("scoring %s", s.best)
        plots = [BatchPlots(s.save_dir, s.spec.names)]
        result = s.evaluator.run(model, None, plots)
        log_table(result, s.spec.names)
        save_plots(result, s.spec.names, s.save_dir)
    s.callbacks.on_train_end(TrainEnd(save_dir=s.save_dir, best=best, epochs_run=epochs_run))


def main(options: TrainOptions) -> None:
    load_modules(options.modules)
    s = prepare(options)
    labels = np.concatenate([record.boxes for record in s.records])
    s.callbacks.on_train_start(
        TrainStart(
            save_dir=s.save_dir, epochs=s.options.epochs, names=s.spec.names, labels=labels, resumed_epoch=s.start_epoch
        )
    )  # fmt: skip
    try:
        epochs_run = fit(s)
    except KeyboardInterrupt:
        if s.best_written:
            LOG.info("stopped; go on with: python train.py --resume %s%s", s.last, modules_argument(s.model.yaml))
        raise
    finish(s, epochs_run)


def run(**options: Any) -> None:
    """Train from Python, with the options by their names: ``train.run(data="my.yaml", imgsz=320)``."""
    main(options_from(TrainOptions, options))


if __name__ == "__main__":
    sys.exit(run_script(main, TrainOptions))
