"""Builds a training run from its options, before the first epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.memory_format import fastest_memory_format, set_memory_format
from models.summary import log_layer_table, summarize
from utils.checkpoint.official import fetch_official
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.config.sizes import check_img_size, chosen_side
from utils.config.train_options import AUTO
from utils.config.train_slices import (
    FolderOptions,
    LabelOptions,
    LoaderOptions,
    LoggerOptions,
    LoopOptions,
    ModelOptions,
    SaveOptions,
    StepOptions,
)
from utils.core.callbacks import Callback, Callbacks
from utils.core.device import select_device
from utils.core.dist import ALONE, Ranks
from utils.core.memory import keep_freed_memory
from utils.core.names import counted
from utils.core.seed import seed_everything
from utils.evaluation import Evaluator
from utils.loggers import WandbLogger, require_packages, routing_loggers, select_loggers
from utils.loss import DetectionLoss, scale_gains
from utils.training.autobatch import choose_batch_size
from utils.training.batch_norm import NormWarmUp
from utils.training.checkpoints import restore
from utils.training.compiled import Network, compile_network
from utils.training.data_setup import Loaders, make_loaders, read_labels
from utils.training.distributed import device_of_rank, distribute
from utils.training.dry_run import random_images
from utils.training.early_stop import EarlyStopping
from utils.training.ema import ModelEMA
from utils.training.model_setup import (
    StartModel,
    choose_precision,
    require_anchors,
    set_anchors,
    start_model,
    start_routing,
)
from utils.training.optim import build_optimizer
from utils.training.resume import Resumed
from utils.training.run_options import resolve_options
from utils.training.saver import Saver, make_run_folder
from utils.training.schedule import plan_steps
from utils.training.session import Session
from utils.training.signals import StopSignals
from utils.training.state import TrainState
from utils.training.step_guard import StepGuard

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Basis:
    """What all parts of a run are made from."""

    hyp: Hyp
    imgsz: int
    device: torch.device
    amp: bool
    ranks: Ranks
    start: StartModel
    resumed: Resumed | None


def prepare(options: TrainOptions, ranks: Ranks = ALONE) -> Session:
    """Check all input, then build the run.

    Every rank builds its own; rank 0 writes the files, and what is drawn or fitted comes from it.

    Raises:
        FileNotFoundError, InputError: some input does not fit; nothing has been trained or overwritten.
    """
    options, resumed = resolve_options(options, ranks)
    hyp = _hyper_parameters(options.hyp, options.label_smoothing, ranks, resumed)
    loggers = LoggerOptions.of(options)
    require_packages(loggers)  # before the labels are read, which may take long
    device = select_device(device_of_rank(options.device, ranks))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # otherwise the other ranks would take memory on the first GPU as well
    seed_everything(options.seed, deterministic=options.deterministic or device.type == "cpu")  # costs nothing there
    spec = DatasetSpec.load(options.data, options.single_cls)
    ranks.on_main(fetch_official, [options.weights], options.download)
    for line in options.without_effect(hyp, spec.nc):
        LOG.warning(line)
    start = start_model(ModelOptions.of(options), hyp, spec, device, ranks, resumed)  # a wrong --cfg fails early
    model, stride = start.model, int(start.model.stride.max())
    labels = read_labels(LabelOptions.of(options), spec, ranks)
    if options.imgsz is None:
        options = replace(options, imgsz=chosen_side(None, [model.imgsz], stride))
    imgsz = check_img_size(options.imgsz or 0, stride, floor=2 * stride)
    if resumed is None and not options.noautoanchor:
        set_anchors(model, labels.train, hyp, imgsz, options.seed, ranks)
    require_anchors(model, options.hyp)
    if device.type == "cpu":
        keep_freed_memory()
    amp = choose_precision(options.amp, model.to(device), device, ranks, resumed)
    start_routing(start, hyp, labels.train, imgsz, device, ranks)
    if options.batch_size == AUTO:
        step = replace(StepOptions.of(options), amp=amp)
        options = replace(options, batch_size=choose_batch_size(model, imgsz, device, step, len(labels.train)))
    recorded = to_plain(options)
    folder = ranks.on_main(make_run_folder, FolderOptions.of(options), recorded, hyp.to_dict())
    saver = Saver(folder, SaveOptions.of(options), recorded)
    loaders = make_loaders(LoaderOptions.of(options), hyp, labels, imgsz, stride, ranks)
    listeners = select_loggers(loggers, recorded, hyp, model, vars(labels)) if ranks.main else []
    basis = _Basis(hyp, imgsz, device, amp, ranks, start, resumed)
    session = _assemble(basis, LoopOptions.of(options), saver, loaders, listeners)
    if resumed is not None:
        restore(session, resumed.checkpoint)
    if options.compile:
        session = replace(session, network=_compiled(session))
    if ranks.main:
        _log_summary(session, layers=options.evolve is None)  # otherwise every trial would list them
    return session


def _hyper_parameters(file: str, label_smoothing: float, ranks: Ranks, resumed: Resumed | None) -> Hyp:
    """Return the hyper-parameters of ``--hyp``, or those of the run that is resumed."""
    hyp = Hyp.from_dict(resumed.checkpoint.hyp, str(resumed.path)) if resumed else ranks.on_main(Hyp.load, file)
    return replace(hyp, label_smoothing=label_smoothing) if label_smoothing else hyp


def _assemble(
    basis: _Basis, options: LoopOptions, saver: Saver, loaders: Loaders, listeners: Sequence[Callback]
) -> Session:
    """Make the parts of the training step, and the run of all parts."""
    model, hyp, device, amp, ranks = basis.start.model, basis.hyp, basis.device, basis.amp, basis.ranks
    plan = plan_steps(options.epochs, len(loaders.train), options.batch_size, hyp)
    state = TrainState(EarlyStopping(options.patience), np.zeros(model.nc))
    if basis.resumed is not None:
        recorded = basis.resumed.checkpoint.train_state
        plan = replace(plan, warmup=recorded.get("warmup", plan.warmup))  # a longer run must not warm up again
        state = TrainState.from_checkpoint(recorded, options.patience, basis.resumed.extended)
        state.best_written = state.best_written and saver.best.exists()
    set_memory_format(model, fastest_memory_format(device))
    head, ema = model.head, ModelEMA(model)
    if listeners:
        table = routing_loggers(ema.model, plan.iterations, hyp.temperature_end, plan.too_short)
        listeners = [*listeners, *table]
    scaler = torch.amp.GradScaler("cuda", enabled=amp and device.type == "cuda")  # bfloat16 has the range of float32
    norms = NormWarmUp(model, enabled=not hyp.warmup_v61, shared=ranks.size > 1)
    return Session(
        options=options,
        hyp=hyp,
        plan=plan,
        imgsz=basis.imgsz,
        device=device,
        amp=amp,
        ranks=ranks,
        model=model,
        network=distribute(model, device, ranks),
        ema=ema,
        loss=DetectionLoss(head.anchors, head.stride, head.nc, scale_gains(hyp, head.nl, head.nc, basis.imgsz), ranks),
        optimizer=build_optimizer(model, options.optimizer, hyp, plan.decay_factor),
        scaler=scaler,
        guard=StepGuard(model, basis.start.frozen, norms, options.skip_nonfinite, scaler.is_enabled(), ranks),
        loader=loaders.train,
        evaluator=Evaluator(loaders.val, model.nc, device, single_cls=options.single_cls, half=amp, ranks=ranks),
        observers=[listener for listener in listeners if isinstance(listener, WandbLogger)],
        callbacks=Callbacks(listeners),
        saver=saver,
        stop=StopSignals(ranks),
        state=state,
    )


def _compiled(s: Session) -> Network:
    """Compile the model for full batches."""
    batch, side = (s.plan.batch_size // 4, 2 * s.imgsz) if s.options.quad else (s.plan.batch_size, s.imgsz)
    images = random_images(s.model, batch, side, s.device).contiguous(memory_format=s.layout)
    s.guard.start_training()
    return compile_network(s.model, images, s.amp)


def _log_summary(s: Session, layers: bool) -> None:
    if layers:
        log_layer_table(s.model)
    LOG.info("%s at 640 px", summarize(s.model))
    LOG.info(s.plan.describe())
    if s.ranks.size > 1:
        each = s.plan.batch_size // s.ranks.size
        LOG.info("%d processes, each with %s of every batch", s.ranks.size, counted(each, "image"))
