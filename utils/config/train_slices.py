"""Slices of the options of ``train.py``: below ``prepare`` each part of a run receives only what it uses.

The fields have the names and types of :class:`TrainOptions`, which holds flags, defaults and checks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

from utils.config.train_options import TrainOptions

SliceT = TypeVar("SliceT", bound="OptionSlice")


@dataclass(frozen=True)
class OptionSlice:
    """Base of the slices."""

    @classmethod
    def of(cls: type[SliceT], options: TrainOptions) -> SliceT:
        """Take the fields of this slice from the whole record."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class ModelOptions(OptionSlice):
    """Which model is trained, and which layers of it."""

    weights: str
    cfg: str
    freeze: tuple[int | str, ...]
    sync_bn: bool
    optimizer: str


@dataclass(frozen=True)
class LabelOptions(OptionSlice):
    """How the labels of a data set are read, and its images downloaded."""

    single_cls: bool
    cache_dir: str
    download: bool
    allow_scripts: bool
    download_limit: int


@dataclass(frozen=True)
class LoaderOptions(OptionSlice):
    """How images become batches."""

    batch_size: int
    workers: int
    rect: bool
    quad: bool
    cache: str | None
    cache_dir: str
    mosaic_from: str
    seed: int


@dataclass(frozen=True)
class StepOptions(OptionSlice):
    """What decides how much memory a training step takes, apart from model and images."""

    multi_scale: bool
    quad: bool
    optimizer: str
    amp: bool | None


@dataclass(frozen=True)
class LoopOptions(OptionSlice):
    """What training steps and validations depend on."""

    epochs: int
    batch_size: int
    optimizer: str
    single_cls: bool
    patience: int
    noval: bool
    skip_nonfinite: int
    cos_lr: bool
    image_weights: bool
    multi_scale: bool
    quad: bool
    seed: int


@dataclass(frozen=True)
class SaveOptions(OptionSlice):
    """Which checkpoints are written."""

    nosave: bool
    save_period: int
    save_steps: int
    evolve: int | None


@dataclass(frozen=True)
class FolderOptions(OptionSlice):
    """Where the run folder is."""

    project: str
    name: str
    exist_ok: bool


@dataclass(frozen=True)
class LoggerOptions(OptionSlice):
    """Which loggers observe a run, and their settings."""

    evolve: int | None
    tensorboard: bool
    mlflow: bool
    wandb: bool
    project: str
    entity: str | None
    upload_dataset: str | bool
    bbox_interval: int
