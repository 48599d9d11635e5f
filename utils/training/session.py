"""A training run in progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from models.memory_format import fastest_memory_format
from models.yolo import Model
from utils.config.hyp import Hyp
from utils.config.train_slices import LoopOptions
from utils.core.callbacks import Callbacks
from utils.core.dist import Ranks
from utils.datasets.labels.records import LabelRecord
from utils.datasets.loader import EpochSampler, sampler_of
from utils.evaluation import Evaluator
from utils.evaluation.evaluator import Observer
from utils.loss import DetectionLoss
from utils.training.compiled import Network
from utils.training.ema import ModelEMA
from utils.training.saver import Saver, resume_command
from utils.training.schedule import StepPlan
from utils.training.signals import StopSignals
from utils.training.state import TrainState
from utils.training.step_guard import StepGuard


@dataclass(frozen=True)
class Session:
    """What a run consists of. Its parts do not change; what a checkpoint records of its course is in ``state``.

    The tensors of model, EMA model, optimizer and scaler are changed in place, by lines of ``train.py`` only.

    Attributes:
        options: those that the loop depends on.
        hyp: hyper-parameters.
        plan: warm-up and accumulation.
        imgsz: side of the training images in pixels.
        device: of the model.
        amp: mixed precision: float16 on a GPU, bfloat16 on a CPU.
        ranks: the processes of the run.
        model: without wrappers.
        network: what the loop calls: the model, the model wrapped for several ranks, or the compiled model.
        ema: EMA model, which is evaluated and saved.
        loss, optimizer, scaler, guard: of the training step.
        loader: batches of the training set.
        evaluator: runs the validations; ``observers`` see each of them.
        callbacks: loggers.
        saver: writes checkpoints into the run folder.
        stop: signals that stop the run.
        state: what changes during the run.
    """

    options: LoopOptions
    hyp: Hyp
    plan: StepPlan
    imgsz: int
    device: torch.device
    amp: bool
    ranks: Ranks
    model: Model
    network: Network
    ema: ModelEMA
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    guard: StepGuard
    loader: DataLoader[Any]
    evaluator: Evaluator
    observers: Sequence[Observer]
    callbacks: Callbacks
    saver: Saver
    stop: StopSignals
    state: TrainState

    @property
    def layout(self) -> torch.memory_format:
        """Memory layout of model and images."""
        return fastest_memory_format(self.device)

    @property
    def save_dir(self) -> Path:
        """The run folder."""
        return self.saver.folder

    @property
    def sampler(self) -> EpochSampler:
        """Decides which images an epoch has, and in which order."""
        return sampler_of(self.loader)

    @property
    def records(self) -> Sequence[LabelRecord]:
        """The labels of the training set."""
        records: Sequence[LabelRecord] = self.loader.dataset.records  # type: ignore[attr-defined]
        return records

    @property
    def resume_command(self) -> str:
        """The command line that resumes the run."""
        return resume_command(self.saver.last, self.model.yaml, self.ranks.launcher)
