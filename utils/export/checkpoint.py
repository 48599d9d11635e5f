"""Export of a checkpoint file."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import torch
from torch import nn

from models.dynamic import get_temperature
from models.fuse import fuse
from utils.checkpoint import load_model
from utils.config.dataset_spec import DatasetSpec
from utils.config.export_options import ExportOptions
from utils.config.sizes import chosen_size
from utils.core.errors import InputError
from utils.core.names import counted
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import build_loader
from utils.evaluation import Evaluator
from utils.export.base import check_writable
from utils.export.check import sample_images, time_ms
from utils.export.export_job import ExportJob
from utils.export.formats import Scorer, export_all
from utils.export.results import ExportResult

LOG = logging.getLogger(__name__)


def export_checkpoint(weights: Path, options: ExportOptions, device: torch.device) -> list[ExportResult]:
    """Export one checkpoint in all formats of ``--include``; the first row is the checkpoint itself.

    Raises:
        FileNotFoundError, InputError: the checkpoint, ``--data`` or the output folder cannot be used.
    """
    model, _ = load_model(weights, device)
    temperature = get_temperature(model)
    LOG.info("weights: %s%s", weights, "" if temperature is None else f", dynamic layers at T={temperature:g}")
    size = chosen_size(options.imgsz, [model.imgsz], int(model.stride.max()))
    job = ExportJob(model, options, size, stem_of(weights, options.output), (weights, Path(options.data)))
    check_writable(job.stem.parent)
    score = scorer(job) if options.data else None
    return export_all(job, baseline(job, weights, score), score)


def stem_of(weights: Path, output: str) -> Path:
    """Path of the files without ending: beside the weights, or in ``--output``, which is created."""
    folder = Path(output) if output else weights.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made ({error.strerror}); name another folder") from error
    return folder / weights.stem


def scorer(job: ExportJob) -> Scorer:
    """A function that computes mAP@.5 and mAP@.5:.95 on the val split of ``--data``, with square images of the size."""
    options, side = job.options, job.hw[0]
    spec = DatasetSpec.load(options.data)
    if spec.nc != job.model.nc:
        raise InputError(
            f"--data {options.data} has {counted(spec.nc, 'class')}, the model {job.model.nc}; give its own set"
        )
    if job.hw != (side, side):
        raise InputError(f"--data scores square images; --imgsz is {job.hw[0]} x {job.hw[1]}")
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    records = load_labels(spec, "val", cache_dir=cache_dir).records
    dataset = DetectionDataset(records, side, stride=int(job.model.stride.max()))
    loader = build_loader(dataset, batch_size=options.batch_size, workers=0)

    def score(net: nn.Module) -> tuple[float, float]:
        result = Evaluator(loader, spec.nc, job.device).run(net)
        return result.map50, result.map

    return score


def baseline(job: ExportJob, weights: Path, score: Scorer | None) -> ExportResult:
    """The row of the checkpoint itself: its time and mAP in PyTorch, norms folded."""
    model = copy.deepcopy(job.model)
    fuse(model)
    ms = time_ms(model, sample_images(job.options.batch_size, job.hw).to(job.device))
    map50, map_ = score(model) if score else (None, None)
    return ExportResult(format="pytorch", path=weights, ms=ms, map50=map50, map=map_)
