"""The labels and the data loaders of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.train_slices import LabelOptions, LoaderOptions
from utils.core.dist import Ranks
from utils.core.errors import InputError
from utils.datasets.dataset import DetectionDataset
from utils.datasets.fetch import fetch_missing
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import build_loader
from utils.evaluation.batches import validation_loader

WORKER_NICENESS = 10  # workers give way to the training where both want the same processor


@dataclass(frozen=True)
class SplitLabels:
    """Labels of the training and the validation set."""

    train: list[LabelRecord]
    val: list[LabelRecord]


@dataclass(frozen=True)
class Loaders:
    """Loaders of the training and the validation set."""

    train: DataLoader[Any]
    val: DataLoader[Any]


def read_labels(options: LabelOptions, spec: DatasetSpec, ranks: Ranks) -> SplitLabels:
    """Read the labels, on each machine by one rank first, which downloads missing images if that is requested.

    Raises:
        FileNotFoundError, InputError: images or labels cannot be used, or machines have different ones.
    """
    labels = ranks.first_on_machine(partial(_read_splits, options, spec))
    counts = ranks.gather((len(labels.train), len(labels.val)))
    if len(set(counts)) > 1:
        raise InputError(f"{spec.source}: this run's machines do not have the same images: (train, val) {counts}")
    return labels


def _read_splits(options: LabelOptions, spec: DatasetSpec) -> SplitLabels:
    if options.download:
        scripts, limit = options.allow_scripts, options.download_limit
        spec = fetch_missing(spec, ("train", "val"), allow_scripts=scripts, limit_gb=limit)
    read = partial(load_labels, spec, single_cls=options.single_cls, cache_dir=_folder(options.cache_dir))
    try:
        train = read("train", require_labels=True)
    except InputError as error:
        try:
            read("val")
        except InputError as other:  # one message for the faults of both
            raise InputError(f"{error}; and {other}") from error
        raise
    return SplitLabels(train.records, read("val").records)


def make_loaders(
    options: LoaderOptions, hyp: Hyp, labels: SplitLabels, imgsz: int, stride: int, ranks: Ranks
) -> Loaders:
    """Make the loaders of augmented training batches and of validation batches, which have twice their size."""
    dataset = DetectionDataset(
        labels.train,
        imgsz,
        augment=True,
        hyp=hyp,
        rect=options.rect,
        batch_size=options.batch_size,
        stride=stride,
        seed=options.seed,
        cache_images=options.cache,
        cache_dir=_folder(options.cache_dir),
    )
    train = build_loader(
        dataset,
        batch_size=options.batch_size,
        workers=options.workers,
        shuffle=not options.rect,
        seed=options.seed,
        quad=options.quad,
        ranks=ranks,
        recent_mosaics=options.mosaic_from == "recent",
        niceness=WORKER_NICENESS,
    )
    val = validation_loader(
        labels.val,
        imgsz,
        stride,
        batch_size=2 * options.batch_size,
        workers=options.workers,
        ranks=ranks,
        niceness=WORKER_NICENESS,
    )
    return Loaders(train, val)


def _folder(path: str) -> Path | None:
    return Path(path) if path else None
