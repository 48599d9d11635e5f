"""Builds a training run from its options, before the first epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.common import TEMPERATURE
from models.dynamic import temperatures
from models.inflate import DEVIATION, calibrate
from models.memory_format import fastest_memory_format, set_memory_format
from models.routing import layer_names
from models.summary import log_layer_table, summarize
from models.yolo import Model
from utils.checkpoint import load_checkpoint, transfer
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions
from utils.config.sizes import check_img_size, chosen_side
from utils.config.train_options import AUTO
from utils.core.callbacks import Callback, Callbacks
from utils.core.device import select_device
from utils.core.dist import ALONE, Ranks
from utils.core.errors import InputError, UntrainableError
from utils.core.image import to_model_input
from utils.core.memory import keep_freed_memory
from utils.core.names import counted
from utils.core.seed import seed_everything
from utils.datasets.anchors import box_sizes, check_anchors
from utils.datasets.dataset import DetectionDataset
from utils.datasets.dataset_labels import load_labels
from utils.datasets.fetch import fetch_missing
from utils.datasets.labels import LabelRecord
from utils.datasets.loader import build_loader, sampler_of
from utils.evaluation import Evaluator
from utils.evaluation.batches import validation_loader
from utils.loggers import (
    ConsoleLogger,
    MlflowLogger,
    PlotsLogger,
    ResultsCsv,
    RoutingCsv,
    RoutingWatch,
    TensorBoardLogger,
    WandbLogger,
)
from utils.loggers.mlflow import require_mlflow
from utils.loggers.tensorboard import require_tensorboard
from utils.loggers.wandb import require_wandb
from utils.loss import DetectionLoss, scale_gains
from utils.training.autobatch import choose_batch_size
from utils.training.batch_norm import NormWarmUp
from utils.training.compiled import compile_network
from utils.training.distributed import (
    check_alone,
    check_batch_size,
    device_of_rank,
    distribute,
    own_machine,
    synchronize_norms,
)
from utils.training.dry_run import random_images
from utils.training.early_stop import EarlyStopping
from utils.training.ema import ModelEMA
from utils.training.finite_checks import NumberWatch
from utils.training.freeze import FrozenLayers
from utils.training.optim import build_optimizer
from utils.training.precision import kept_precision, mixed_precision
from utils.training.resume import Resumed, check_resumable, resume_options, same_model
from utils.training.saver import lock_known, make_folder
from utils.training.schedule import StepPlan, plan_steps
from utils.training.session import Session
from utils.training.signals import StopSignals

LOG = logging.getLogger(__name__)
WORKER_NICENESS = 10  # workers give way to the training where both want the same processor
CALIBRATION_IMAGES = 64  # that the routing of inflated layers is set on
DEFAULT_CFG = "yolov5n_dynamic.yaml"  # when neither --cfg nor --weights is given


def prepare(options: TrainOptions, ranks: Ranks = ALONE) -> Session:
    """Check everything the user gave, then build the run.

    Every process of a run builds its own; what is written is written by rank 0, what is drawn or fitted comes from it.

    Raises:
        FileNotFoundError, InputError: something given does not fit; nothing has been trained or overwritten.
    """
    shared, resumed = ranks.on_main(resume_options, options)  # its file may lie on that machine only
    options = shared if ranks.main else own_machine(shared, options)
    ranks.on_main(lock_known, options)
    options = check_alone(options, ranks, resumed is not None)
    check_batch_size(options.batch_size, options.quad, ranks, resumed is not None)
    hyp = _hyp(options, resumed, ranks)
    for wanted, require in (
        (options.tensorboard, require_tensorboard), (options.wandb, require_wandb), (options.mlflow, require_mlflow)
    ):  # fmt: skip
        if wanted:
            require()  # now, not after the labels have been read
    device = select_device(device_of_rank(options.device, ranks))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else the others of this machine would take memory on the first GPU as well
    seed_everything(options.seed, deterministic=options.deterministic or device.type == "cpu")  # there it is free
    spec = DatasetSpec.load(options.data, options.single_cls)
    _tell_no_effect(options, hyp, spec)
    model, inflated = _build_model(options, hyp, spec, resumed)  # before the images: a wrong --cfg shows at once
    if options.sync_bn:
        synchronize_norms(model, device, ranks)
    frozen = FrozenLayers(model, options.freeze)
    ranks.on_main(check_resumable, resumed, model, hyp, options.optimizer)
    train, val = ranks.first_on_machine(partial(_read_labels, options, spec))
    counts = ranks.gather((len(train), len(val)))
    if len(set(counts)) > 1:
        raise InputError(f"{spec.source}: this run's machines do not have the same images: (train, val) {counts}")
    options, imgsz = _with_size(options, model)
    if resumed is None and not options.noautoanchor:
        anchors = ranks.on_main(_fit_anchors, model, train, hyp, imgsz, options.seed)
        if anchors is not None:
            model.head.set_anchors_px(anchors)
    if (model.head.anchors <= 0).any():
        raise UntrainableError(
            f"the model has placeholder anchors: its yaml or --hyp {options.hyp} gives only their number and they were "
            "not fitted; leave out --noautoanchor, label more boxes, or list the anchors in the yaml"
        )
    if device.type == "cpu":
        keep_freed_memory()
    amp = _precision(options, model.to(device), device, resumed, ranks)
    _start_routing(model, hyp, inflated, train, imgsz, device, ranks)
    if options.batch_size == AUTO:
        size = choose_batch_size(model, imgsz, device, replace(options, amp=amp), len(train))
        options = replace(options, batch_size=size)
    save_dir = ranks.on_main(make_folder, options, hyp)
    session = _assemble(options, hyp, spec, device, save_dir, imgsz, model, frozen, train, val, amp, ranks)
    if resumed is not None:
        session.restore(resumed)
    if options.compile:
        _compile(session)
    if ranks.main:
        _describe(session)
    return session


def _hyp(options: TrainOptions, resumed: Resumed | None, ranks: Ranks) -> Hyp:
    """The hyper-parameters of --hyp, or those of the run that is resumed."""
    hyp = Hyp.from_dict(resumed.checkpoint.hyp, str(resumed.path)) if resumed else ranks.on_main(Hyp.load, options.hyp)
    return replace(hyp, label_smoothing=options.label_smoothing) if options.label_smoothing else hyp


def _read_labels(options: TrainOptions, spec: DatasetSpec) -> tuple[list[LabelRecord], list[LabelRecord]]:
    """The labels to train on and to score on; fetched before if that is wanted."""
    if options.download:
        spec = fetch_missing(
            spec, ("train", "val"), allow_scripts=options.allow_scripts, limit_gb=options.download_limit
        )  # fmt: skip
    read = partial(
        load_labels,
        spec,
        single_cls=options.single_cls,
        cache_dir=Path(options.cache_dir) if options.cache_dir else None,
    )
    try:
        train = read("train", require_labels=True)
    except InputError as error:
        try:
            read("val")
        except InputError as other:  # what is wrong with both is said at once
            raise InputError(f"{error}; and {other}") from error
        raise
    return train.records, read("val").records


def _tell_no_effect(options: TrainOptions, hyp: Hyp, spec: DatasetSpec) -> None:
    """Warn of options that change nothing beside the others; at the start of a run only."""
    if options.resume:
        return
    if options.noval and options.evolve is None and "patience" in options.given and options.patience:
        LOG.warning("--patience has no effect with --noval: there is no fitness to wait for")
    if hyp.label_smoothing and spec.nc == 1:
        LOG.warning("label smoothing has no effect with a single class: there is no class loss")
    if "mosaic_from" in options.given and (options.rect or not hyp.mosaic):
        cause = "--rect" if options.rect else f"mosaic: 0 in {options.hyp}"
        LOG.warning("--mosaic-from has no effect with %s: there are no mosaics", cause)


def _precision(
    options: TrainOptions, model: Model, device: torch.device, resumed: Resumed | None, ranks: Ranks
) -> bool:
    """Whether the run is in mixed precision, on all processes alike."""
    if resumed is not None:
        return kept_precision(options.amp, resumed.checkpoint.train_state.get("amp"), device)
    return not ranks.any(not mixed_precision(options.amp, model, device))


def _build_model(
    options: TrainOptions, hyp: Hyp, spec: DatasetSpec, resumed: Resumed | None
) -> tuple[Model, list[str] | None]:
    """The model of ``--cfg``, or of the checkpoint, with the checkpoint's tensors where they fit.

    With it the names of its dynamic layers that were made from static ones; None when all weights are still to come.
    """
    if resumed is not None:
        return same_model(resumed, spec), None
    anchors = None if hyp.anchors is None else round(hyp.anchors)
    source = load_checkpoint(options.weights) if options.weights else None
    if source is None and not options.cfg:
        LOG.info("neither --cfg nor --weights given: training %s from scratch", DEFAULT_CFG)
    of_weights = {**source.model_yaml, "yaml_file": options.weights} if source else DEFAULT_CFG
    cfg: Any = options.cfg or of_weights
    model = Model(cfg, nc=spec.nc, anchors=anchors)
    model.names = list(spec.names)
    if own := [t for t in temperatures(model) if t not in (TEMPERATURE, hyp.temperature_start)]:
        LOG.warning(
            "a temperature of %g in the model yaml has no effect on training: temperature_start of the --hyp file "
            "(%g) is that of all dynamic layers", own[0], hyp.temperature_start,
        )  # fmt: skip
    inflated: list[str] = []
    if source is not None:
        model.imgsz = source.recorded_size(options.weights)
        exclude = ("anchors",) if options.cfg or anchors else ()
        report = transfer(model, source.weights, exclude, hyp.kernel_spread)
        report.log(options.weights)
        inflated = [one.layer for one in report.inflated]
        if not report.taken and not report.inflated:
            raise InputError(f"--weights {options.weights}: not one tensor fits the model {options.cfg}")
    return model, inflated


def _start_routing(
    model: Model,
    hyp: Hyp,
    inflated: Sequence[str] | None,
    records: Sequence[LabelRecord],
    imgsz: int,
    device: torch.device,
    ranks: Ranks,
) -> None:
    """Calibrate the routing of the dynamic layers on some training images, see ``Hyp.routing_deviation``."""
    if inflated is None or (hyp.routing_deviation is None and (hyp.kernel_spread or not inflated)):
        return
    chosen = [records[i] for i in np.linspace(0, len(records) - 1, min(len(records), CALIBRATION_IMAGES)).astype(int)]
    loader = validation_loader(chosen, imgsz, int(model.stride.max()), batch_size=16, workers=0, rect=False)
    images = (to_model_input(batch.images, device) for batch in loader)
    if hyp.routing_deviation is None:
        count = calibrate(model, images, layers=inflated)
    else:
        count = calibrate(model, images, hyp.routing_deviation)
    if count:
        deviation = DEVIATION if hyp.routing_deviation is None else hyp.routing_deviation
        LOG.info(
            "routing of %d dynamic layers set on %d images: logits of mean 0 and standard deviation %g",
            count, len(chosen), deviation,
        )  # fmt: skip
    ranks.spread(model)


def _with_size(options: TrainOptions, model: Model) -> tuple[TrainOptions, int]:
    """The options with an ``--imgsz``, by default that of the weights, and the multiple of the stride for it."""
    stride = int(model.stride.max())
    side = chosen_side(None, [model.imgsz], stride) if options.imgsz is None else options.imgsz
    return replace(options, imgsz=side), check_img_size(side, stride, floor=2 * stride)


def _fit_anchors(model: Model, records: Sequence[LabelRecord], hyp: Hyp, imgsz: int, seed: int) -> Tensor | None:
    """Anchors in pixels at the training size, when the model's do not suit the boxes of the training set."""
    wh, owner = box_sizes([r.hw for r in records], [r.boxes for r in records], imgsz)
    rng = np.random.default_rng(seed)
    check = check_anchors(wh, model.head.anchors_px.numpy().reshape(-1, 2), hyp.anchor_t, imgsz, rng, owner)
    LOG.info(check.message)
    return None if check.anchors is None else torch.from_numpy(check.anchors).float()


def _assemble(
    options: TrainOptions,
    hyp: Hyp,
    spec: DatasetSpec,
    device: torch.device,
    save_dir: Path,
    imgsz: int,
    model: Model,
    frozen: FrozenLayers,
    train: Sequence[LabelRecord],
    val: Sequence[LabelRecord],
    amp: bool,
    ranks: Ranks,
) -> Session:
    stride, head = int(model.stride.max()), model.head
    train_data = DetectionDataset(
        train, imgsz, augment=True, hyp=hyp, rect=options.rect, batch_size=options.batch_size, stride=stride,
        seed=options.seed, cache_images=options.cache,
        cache_dir=Path(options.cache_dir) if options.cache_dir else None,
    )  # fmt: skip
    loader = build_loader(
        train_data, batch_size=options.batch_size, workers=options.workers, shuffle=not options.rect,
        seed=options.seed, quad=options.quad, ranks=ranks, near_partners=options.mosaic_from == "recent",
        niceness=WORKER_NICENESS,
    )  # fmt: skip
    val_loader = validation_loader(
        val, imgsz, stride, batch_size=2 * options.batch_size, workers=options.workers, ranks=ranks,
        niceness=WORKER_NICENESS,
    )  # fmt: skip
    layout = fastest_memory_format(device)
    set_memory_format(model, layout)
    plan = plan_steps(options.epochs, len(loader), options.batch_size, hyp)
    decay = hyp.weight_decay * plan.decay_factor
    gains = scale_gains(hyp, head.nl, head.nc, imgsz)
    scaler = torch.amp.GradScaler("cuda", enabled=amp and device.type == "cuda")  # bfloat16 has the range of float32
    ema = ModelEMA(model)
    listeners = _listeners(options, hyp, model, {"train": train, "val": val}) if ranks.main else []
    if ranks.main and listeners:
        listeners += _routing_listeners(hyp, ema.model, plan)
    return Session(
        options=options, hyp=hyp, spec=spec, device=device, save_dir=save_dir, imgsz=imgsz, ranks=ranks,
        model=model, network=distribute(model, device, ranks), layout=layout, frozen=frozen, ema=ema,
        loss=DetectionLoss(head.anchors, head.stride, head.nc, gains, ranks),
        optimizer=build_optimizer(
            model, options.optimizer, hyp.lr0, hyp.momentum, decay, hyp.attention_decay, hyp.kernel_lr, hyp.attention_lr
        ),
        scaler=scaler, amp=amp, watch=NumberWatch(model, options.skip_nonfinite, scaler.is_enabled(), ranks),
        loader=loader, sampler=sampler_of(loader), records=train_data.records,
        evaluator=Evaluator(
            val_loader, spec.nc, device, single_cls=options.single_cls, half=amp, ranks=ranks
        ),
        norms=NormWarmUp(model, enabled=not hyp.warmup_v61, shared=ranks.size > 1),
        plan=plan, stopper=EarlyStopping(options.patience),
        callbacks=Callbacks(listeners), observers=[each for each in listeners if isinstance(each, WandbLogger)],
        stop=StopSignals(ranks),
        maps=np.zeros(spec.nc),
    )  # fmt: skip


def _compile(session: Session) -> None:
    """Have the loop call the compiled model."""
    options = session.options
    batch, imgsz = (options.batch_size // 4, 2 * session.imgsz) if options.quad else (options.batch_size, session.imgsz)
    images = random_images(session.model, batch, imgsz, session.device).contiguous(memory_format=session.layout)
    session.model.train()
    session.frozen.hold()
    session.network = compile_network(session.model, images, session.amp)


def _routing_listeners(hyp: Hyp, model: torch.nn.Module, plan: StepPlan) -> list[Callback]:
    """What tells of the routing of dynamic layers; of a short run only that it is too early to tell."""
    if not layer_names(model):
        return []
    table = RoutingCsv(hyp.temperature_end, too_short=plan.too_short)
    return [table] if plan.too_short else [table, RoutingWatch(model, plan.iterations, hyp.temperature_end)]


def _listeners(
    options: TrainOptions, hyp: Hyp, model: Model, sets: Mapping[str, Sequence[LabelRecord]]
) -> list[Callback]:
    listeners: list[Callback] = [ResultsCsv(), ConsoleLogger()]
    if options.evolve is None:
        listeners.append(PlotsLogger())
    if options.tensorboard:
        listeners.append(TensorBoardLogger(model))  # after the plots, which these show
    if options.wandb:
        listeners.append(WandbLogger(options, hyp, sets))
    if options.mlflow:
        listeners.append(MlflowLogger(options, hyp))
    return listeners


def _describe(session: Session) -> None:
    if session.options.evolve is None:  # else it would be said in every trial
        log_layer_table(session.model)
    LOG.info("%s at 640 px", summarize(session.model))
    LOG.info(session.plan.describe())
    if session.ranks.size > 1:
        each = session.options.batch_size // session.ranks.size
        LOG.info("%d processes, each with %s of every batch", session.ranks.size, counted(each, "image"))
