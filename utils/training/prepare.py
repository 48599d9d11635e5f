"""Builds a training run from its options, before the first epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from models.summary import log_table, summarize
from models.yolo import Model
from utils.autoanchor import box_sizes, check_anchors
from utils.callbacks import Callback, Callbacks
from utils.checkpoint import load_checkpoint, transfer
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.config.sizes import check_img_size
from utils.datasets.dataset import DetectionDataset
from utils.datasets.fetch import fetch_missing
from utils.datasets.labels import LabelRecord
from utils.datasets.loader import EpochSampler, build_loader
from utils.datasets.prepare import load_labels
from utils.device import select_device
from utils.errors import InputError, UntrainableError
from utils.evaluation import Evaluator, NmsSettings
from utils.files import increment_path
from utils.loggers import (
    ConsoleLogger,
    MlflowLogger,
    PlotsLogger,
    ResultsCsv,
    RoutingCsv,
    TensorBoardLogger,
    WandbLogger,
)
from utils.loggers.mlflow import require_mlflow
from utils.loggers.tensorboard import require_tensorboard
from utils.loggers.wandb import require_wandb
from utils.loss import DetectionLoss, scale_gains
from utils.seed import seed_everything
from utils.training.early_stop import EarlyStopping
from utils.training.ema import ModelEMA
from utils.training.freeze import FrozenLayers
from utils.training.optim import build_optimizer
from utils.training.precision import kept_precision, mixed_precision
from utils.training.resume import (
    Resumed,
    resume_options,
)
from utils.training.saver import sweep
from utils.training.schedule import plan_steps
from utils.training.session import Session
from utils.training.watch import NumberWatch

LOG = logging.getLogger(__name__)
DEFAULT_CFG = "yolov5n_dynamic.yaml"  # when neither --cfg nor --weights is given


def prepare(options: TrainOptions) -> Session:
    """Check everything the user gave, then build the run.

    Raises:
        FileNotFoundError, InputError: something given does not fit; nothing has been trained or overwritten.
    """
    options, resumed = resume_options(options)
    hyp = Hyp.from_dict(resumed.checkpoint.hyp, "checkpoint") if resumed else Hyp.load(options.hyp)
    if options.label_smoothing:
        hyp = replace(hyp, label_smoothing=options.label_smoothing)
    for wanted, require in (
        (options.tensorboard, require_tensorboard), (options.wandb, require_wandb), (options.mlflow, require_mlflow)
    ):  # fmt: skip
        if wanted:
            require()  # now, not after the labels have been read
    device = select_device(options.device)
    seed_everything(options.seed, options.deterministic)
    spec = DatasetSpec.load(options.data, options.single_cls)
    if resumed is None:
        _tell_no_effect(options, hyp, spec, device)
    model = _build_model(options, hyp, spec, resumed)  # before the pictures: a wrong --cfg shows at once
    frozen = FrozenLayers(model, options.freeze)
    if options.download:
        spec = fetch_missing(
            spec, ("train", "val"), allow_scripts=options.allow_scripts, limit_gb=options.download_limit
        )  # fmt: skip
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    train_set = load_labels(spec, "train", single_cls=options.single_cls, require_labels=True, cache_dir=cache_dir)
    val_set = load_labels(spec, "val", single_cls=options.single_cls, cache_dir=cache_dir)
    imgsz = check_img_size(options.imgsz, int(model.stride.max()), floor=2 * int(model.stride.max()))
    if resumed is None and not options.noautoanchor:
        _fit_anchors(model, train_set.records, hyp, imgsz, options.seed)
    if (model.head.anchors <= 0).any():
        raise UntrainableError(
            f"the model has placeholder anchors: its yaml or --hyp {options.hyp} gives only their number and they were "
            "not fitted; leave out --noautoanchor, label more boxes, or list the anchors in the yaml"
        )
    model.to(device)
    if resumed is None:
        amp = mixed_precision(options.amp, model, device)
    else:
        amp = kept_precision(options.amp, resumed.checkpoint.train_state.get("amp"), device)
    save_dir = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
    (save_dir / "weights").mkdir(exist_ok=True)
    sweep(save_dir / "weights")
    _record_settings(save_dir, options, hyp)
    session = _assemble(
        options, hyp, spec, device, save_dir, imgsz, model, frozen, train_set.records, val_set.records, amp
    )  # fmt: skip
    if resumed is not None:
        session.restore(resumed)
    _describe(session)
    return session


def _tell_no_effect(options: TrainOptions, hyp: Hyp, spec: DatasetSpec, device: torch.device) -> None:
    """Warn of options that change nothing beside the others."""
    if options.noval and "patience" in options.given and options.patience:
        LOG.warning("--patience has no effect with --noval: there is no fitness to wait for")
    if hyp.label_smoothing and spec.nc == 1:
        LOG.warning("label smoothing has no effect with a single class: there is no class loss")
    if options.deterministic and device.type == "cpu":
        LOG.warning("--deterministic has no effect on a CPU: the same seed gives the same run anyway")


def _build_model(options: TrainOptions, hyp: Hyp, spec: DatasetSpec, resumed: Resumed | None) -> Model:
    """The model of ``--cfg``, or of the checkpoint, with the checkpoint's tensors where they fit."""
    if resumed is not None:
        return _same_model(resumed, spec)
    anchors = None if hyp.anchors is None else round(hyp.anchors)
    source = load_checkpoint(options.weights) if options.weights else None
    if source is None and not options.cfg:
        LOG.info("neither --cfg nor --weights given: training %s from scratch", DEFAULT_CFG)
    of_weights = {**source.model_yaml, "yaml_file": options.weights} if source else DEFAULT_CFG
    cfg: Any = options.cfg or of_weights
    model = Model(cfg, nc=spec.nc, anchors=anchors)
    model.names = list(spec.names)
    if source is not None:
        exclude = ("anchors",) if options.cfg or anchors else ()
        report = transfer(model, source.weights, exclude)
        report.log(options.weights)
        if not report.taken and not report.inflated:
            raise InputError(f"--weights {options.weights}: not one tensor fits the model {options.cfg}")
    return model


def _same_model(resumed: Resumed, spec: DatasetSpec) -> Model:
    """The model of the run that is resumed, whose tensors are put in later."""
    checkpoint = resumed.checkpoint
    if list(spec.names) != checkpoint.names:
        names = ", ".join(checkpoint.names)
        raise InputError(f"--resume {resumed.path}: {spec.source} names other classes than this run has ({names})")
    model = Model({**checkpoint.model_yaml, "yaml_file": str(resumed.path)}, nc=checkpoint.nc)
    model.names = list(checkpoint.names)
    return model


def _fit_anchors(model: Model, records: Sequence[LabelRecord], hyp: Hyp, imgsz: int, seed: int) -> None:
    """Replace the anchors when they do not suit the boxes of the training set, in pixels at the training size."""
    wh, owner = box_sizes([r.hw for r in records], [r.boxes for r in records], imgsz)
    rng = np.random.default_rng(seed)
    check = check_anchors(wh, model.head.anchors_px.numpy().reshape(-1, 2), hyp.anchor_t, imgsz, rng, owner)
    LOG.info(check.message)
    if check.anchors is not None:
        model.head.set_anchors_px(torch.from_numpy(check.anchors).float())


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
) -> Session:
    stride, head = int(model.stride.max()), model.head
    train_data = DetectionDataset(
        train, imgsz, augment=True, hyp=hyp, rect=options.rect, batch_size=options.batch_size, stride=stride,
        seed=options.seed, cache_images=options.cache,
        cache_dir=Path(options.cache_dir) if options.cache_dir else None,
    )  # fmt: skip
    loader = build_loader(
        train_data, batch_size=options.batch_size, workers=options.workers, shuffle=not options.rect,
        seed=options.seed, quad=options.quad,
    )  # fmt: skip
    val_data = DetectionDataset(val, imgsz, rect=True, batch_size=2 * options.batch_size, stride=stride, pad=0.5)
    val_loader = build_loader(val_data, batch_size=2 * options.batch_size, workers=options.workers)
    plan = plan_steps(options.epochs, len(loader), options.batch_size, hyp)
    decay = hyp.weight_decay * plan.decay_factor
    gains = scale_gains(hyp, head.nl, head.nc, imgsz)
    for each in (loader, val_loader):
        each.generator = torch.Generator()  # else every start of loader processes would move the run's own numbers on
    scaler = torch.amp.GradScaler("cuda", enabled=amp and device.type == "cuda")  # bfloat16 has the range of float32
    sampler = loader.sampler
    assert isinstance(sampler, EpochSampler)
    listeners = _listeners(options, hyp, {"train": train, "val": val})
    return Session(
        options=options, hyp=hyp, spec=spec, device=device, save_dir=save_dir, imgsz=imgsz, model=model, frozen=frozen,
        ema=ModelEMA(model),
        loss=DetectionLoss(head.anchors, head.stride, head.nc, gains),
        optimizer=build_optimizer(model, options.optimizer, hyp.lr0, hyp.momentum, decay, hyp.attention_decay),
        scaler=scaler, amp=amp, watch=NumberWatch(model, options.skip_nonfinite, scaler.is_enabled()),
        loader=loader, sampler=sampler, records=train_data.records,
        evaluator=Evaluator(
            val_loader, spec.nc, device, NmsSettings(), single_cls=options.single_cls, half=amp
        ),
        plan=plan, stopper=EarlyStopping(options.patience),
        callbacks=Callbacks(listeners), observers=[each for each in listeners if isinstance(each, WandbLogger)],
        maps=np.zeros(spec.nc),
    )  # fmt: skip


def _listeners(options: TrainOptions, hyp: Hyp, sets: Mapping[str, Sequence[LabelRecord]]) -> list[Callback]:
    listeners: list[Callback] = [ResultsCsv(), RoutingCsv(hyp.temperature_end), ConsoleLogger()]
    if options.evolve is None:
        listeners.append(PlotsLogger())
    if options.tensorboard:
        listeners.append(TensorBoardLogger())  # after the plots, which these show
    if options.wandb:
        listeners.append(WandbLogger(options, hyp, sets))
    if options.mlflow:
        listeners.append(MlflowLogger(options, hyp))
    return listeners


def _record_settings(save_dir: Path, options: TrainOptions, hyp: Hyp) -> None:
    """``opt.yaml`` and ``hyp.yaml`` in the run folder: what this run was made with."""
    for name, content in (("opt", to_plain(options)), ("hyp", hyp.to_dict())):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (save_dir / f"{name}.yaml").write_text(text, encoding="utf-8")


def _describe(session: Session) -> None:
    if session.options.evolve is None:  # else it would be said in every trial
        log_table(session.model)
    LOG.info("%s at 640 px", summarize(session.model))
    LOG.info(session.plan.describe())
