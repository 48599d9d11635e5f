"""Everything a training run consists of, and how it is saved and restored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from models.dynamic import temperatures
from models.routing import RoutingStats
from models.yolo import Model
from utils.checkpoint import Checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.core.callbacks import Callbacks
from utils.core.dist import Ranks
from utils.datasets.labels import LabelRecord
from utils.datasets.loader import EpochSampler
from utils.evaluation import Evaluator
from utils.evaluation.evaluator import Observer
from utils.loss import DetectionLoss
from utils.training.batch_norm import NormWarmUp
from utils.training.compiled import Network
from utils.training.early_stop import EarlyStopping
from utils.training.ema import ModelEMA
from utils.training.epoch_progress import Position
from utils.training.finite_checks import NumberWatch
from utils.training.freeze import FrozenLayers
from utils.training.optimizer_state import (
    load_gradients,
    load_optimizer_state,
    load_random_states,
    optimizer_state,
    pending_gradients,
    random_states,
)
from utils.training.resume import Resumed
from utils.training.saver import Saver, resume_command
from utils.training.schedule import StepPlan, describe_change
from utils.training.signals import StopSignals

LOG = logging.getLogger(__name__)


@dataclass
class Session:
    """A run in progress. What the loop changes is listed last."""

    options: TrainOptions
    hyp: Hyp
    spec: DatasetSpec
    device: torch.device
    save_dir: Path
    imgsz: int
    model: Model
    network: Network  # what the loop calls: the model, or the model among other processes, or the model compiled
    layout: torch.memory_format  # of model and images
    frozen: FrozenLayers
    ema: ModelEMA
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: DataLoader[Any]
    sampler: EpochSampler
    records: Sequence[LabelRecord]
    evaluator: Evaluator
    plan: StepPlan
    stopper: EarlyStopping
    watch: NumberWatch
    norms: NormWarmUp
    callbacks: Callbacks
    ranks: Ranks
    stop: StopSignals
    amp: bool  # mixed precision: float16 on a GPU, bfloat16 on a CPU
    observers: Sequence[Observer] = ()  # of every validation
    saver: Saver = field(default_factory=Saver)
    start_epoch: int = 0
    position: Position = field(default_factory=Position)  # in the epoch in progress
    interrupted: bool = False  # by a signal, in an epoch
    stopped_early: bool = False
    temperature: float | None = None  # of the dynamic layers; None before the first batch
    last_step: int = -1  # iteration of the last optimizer step
    best_written: bool = False  # by this run: an older one may have left a best.pt in its folder
    maps: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [nc] mAP per class of the last validation
    routing: tuple[RoutingStats, ...] = ()  # of the dynamic layers in the last validation

    @property
    def weights_dir(self) -> Path:
        return self.save_dir / "weights"

    @property
    def last(self) -> Path:
        return self.weights_dir / "last.pt"

    @property
    def best(self) -> Path:
        return self.weights_dir / "best.pt"

    @property
    def dynamic(self) -> bool:
        return bool(temperatures(self.model))

    @property
    def resume_command(self) -> str:
        return resume_command(self.last, self.model.yaml, self.ranks.launcher)

    def enter(self, epoch: int) -> Position:
        """Where to begin in an epoch: at its first batch, unless the run was interrupted in it."""
        if self.position.epoch != epoch:
            self.position = Position(epoch)
        return self.position

    def checkpoint(self, epoch: int, inside: Position | None = None) -> Checkpoint:
        """The run as it stands after ``epoch``, or further on, ``inside`` the next one."""
        return Checkpoint(
            model_yaml=self.model.yaml,
            nc=self.spec.nc,
            names=list(self.spec.names),
            stride=self.model.stride.tolist(),
            model=self.model.state_dict(),
            ema=self.ema.model.state_dict(),
            ema_updates=self.ema.updates,
            optimizer=optimizer_state(self.optimizer, self.model),
            scaler=self.scaler.state_dict(),
            train_state={
                "epoch": epoch,
                "last_step": self.last_step,
                "early_stop": self.stopper.state_dict(),
                "maps": self.maps.tolist(),
                "gradients": pending_gradients(self.model),
                "warmup": self.plan.warmup,
                "images": len(self.records),
                "processes": self.ranks.size,
                "skipped": self.watch.skipped,
                "amp": self.amp,
                "stopped_early": self.stopped_early,
                "best_written": self.best_written,
                **({"position": inside.to_plain()} if inside else {}),
            },
            imgsz=self.imgsz,
            hyp=self.hyp.to_dict(),
            options=to_plain(self.options),
            rng=random_states(self.device),
        )

    def restore(self, resumed: Resumed) -> None:
        """Go on where a checkpoint was made."""
        checkpoint = resumed.checkpoint
        state = checkpoint.train_state
        self.model.load_state_dict(checkpoint.model)
        assert checkpoint.ema is not None and checkpoint.optimizer is not None
        self.ema.model.load_state_dict(checkpoint.ema)
        self.ema.updates = checkpoint.ema_updates
        load_optimizer_state(self.optimizer, self.model, checkpoint.optimizer)
        if bool(checkpoint.scaler) == self.scaler.is_enabled():  # else waiting gradients are scaled otherwise
            load_gradients(self.model, state["gradients"])
            self.scaler.load_state_dict(checkpoint.scaler or {})
        self.stopper.load_state_dict(state["early_stop"])
        self.stopped_early = resumed.stopped_early
        self.last_step = state["last_step"]
        self.maps = np.array(state["maps"])
        self.start_epoch = resumed.epochs_done
        if "position" in state:
            self.position = Position.from_plain(self.start_epoch, state["position"])
        if resumed.extended and state.get("stopped_early"):
            self.stopper.since = self.start_epoch
        self.watch.skipped = state.get("skipped", 0)
        # A longer run must not fall back into a longer warm-up.
        self.plan = replace(self.plan, warmup=state.get("warmup", self.plan.warmup))
        self.best_written = state.get("best_written", True) and self.best.exists()
        load_random_states(checkpoint.rng, self.device)
        self._tell_changes(checkpoint)

    def _tell_changes(self, checkpoint: Checkpoint) -> None:
        before = checkpoint.options["epochs"]
        if before != self.options.epochs:
            LOG.info(
                describe_change(before, self.options.epochs, self.start_epoch, self.hyp, self.options.cos_lr)
            )  # fmt: skip
        processes = checkpoint.train_state.get("processes", self.ranks.size)
        if processes != self.ranks.size:
            LOG.info(
                "%d process(es) go on with a run of %d: batches and gradients stay those of the run%s",
                self.ranks.size, processes,
                "" if self.options.sync_bn else "; batch norm, without --sync-bn, sees the images of each process",
            )  # fmt: skip
        images = checkpoint.train_state.get("images", len(self.records))
        if images != len(self.records):
            LOG.warning(
                "the training set has %d images now, %d when this run was saved: it will not be the same run",
                len(self.records), images,
            )  # fmt: skip
