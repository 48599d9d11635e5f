"""Turn a trained model into files for other programs, and prove each against PyTorch.

    python export.py --weights runs/train/exp/weights/best.pt --include onnx --dynamic --simplify
    python export.py --weights best.pt --include onnx --nms --data my.yaml      # suppression inside; mAP in the table
    python detect.py --weights best.onnx

Files lie beside the weights, or in ``--output``. The table at the end says for each format the size, the worst
difference to PyTorch, the time per picture, or why there is no file; the exit code is 1 if one is missing.
"""

from __future__ import annotations

import copy
import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.dynamic import get_temperature
from models.fuse import fuse
from models.user_modules import load_modules
from models.yolo import Model
from utils.checkpoint import load_model
from utils.checkpoint.find import newest_checkpoint
from utils.config.cli import EXIT_INPUT, run_script
from utils.config.dataset_spec import DatasetSpec
from utils.config.keywords import options_from
from utils.config.options import ExportOptions
from utils.config.paths import ROOT
from utils.config.sizes import check_img_size
from utils.datasets.dataset import DetectionDataset
from utils.datasets.loader import build_loader
from utils.datasets.prepare import load_labels
from utils.device import select_device
from utils.errors import InputError
from utils.evaluation import Evaluator
from utils.export import Job, Row, check_writable, export_all, log_rows
from utils.export.check import pictures, time_ms

LOG = logging.getLogger(__name__)


def scorer(options: ExportOptions, model: Model, device: torch.device) -> Callable[[nn.Module], tuple[float, float]]:
    """What gives mAP@.5 and mAP@.5:.95 on the val split of ``--data``, all at the one square size of the export."""
    spec = DatasetSpec.load(options.data)
    if spec.nc != model.nc:
        raise InputError(f"--data {options.data} has {spec.nc} classes, the model {model.nc}; give its own set")
    if options.imgsz[0] != options.imgsz[-1]:
        raise InputError(f"--data scores square pictures; --imgsz is {options.imgsz[0]} x {options.imgsz[-1]}")
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    stride = int(model.stride.max())
    side = check_img_size(options.imgsz[0], stride)
    dataset = DetectionDataset(load_labels(spec, "val", cache_dir=cache_dir).records, side, stride=stride)
    loader = build_loader(dataset, batch_size=options.batch_size, workers=0)

    def score(net: nn.Module) -> tuple[float, float]:
        result = Evaluator(loader, spec.nc, device).run(net)
        return result.map50, result.map

    return score


def stem_of(weights: Path, output: str) -> Path:
    """Path of the files without ending: beside the weights, or in ``--output``, which is made."""
    folder = Path(output) if output else weights.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made ({error.strerror}); name another folder") from error
    return folder / weights.stem


def export(weights: Path, options: ExportOptions, device: torch.device) -> list[Row]:
    """All formats of one checkpoint; the first row is the checkpoint itself."""
    model, _ = load_model(weights, device)
    temperature = get_temperature(model)
    LOG.info("weights: %s%s", weights, "" if temperature is None else f", dynamic layers at T={temperature:g}")
    sides = [check_img_size(side, int(model.stride.max())) for side in options.imgsz]
    job = Job(model, options, (sides[0], sides[-1]), stem_of(weights, options.output))
    check_writable(job.stem.parent)
    score = scorer(options, model, device) if options.data else None
    source = baseline(job, weights, score)
    return export_all(job, source, score)


def baseline(job: Job, weights: Path, score: Callable[[nn.Module], tuple[float, float]] | None) -> Row:
    """How fast and good the checkpoint is in PyTorch, norms folded."""
    model = copy.deepcopy(job.model)
    fuse(model)
    ms = time_ms(model, pictures(job.options.batch_size, job.hw).to(job.device))
    map50, map_ = score(model) if score else (None, None)
    return Row(format="pytorch", path=weights, ms=ms, map50=map50, map=map_)


def main(options: ExportOptions) -> int:
    load_modules(options.modules)
    if options.inplace:
        LOG.warning("--inplace is without effect: the head never works in place")
    device = select_device(options.device)
    files = [Path(name) for name in options.weights] or [newest_checkpoint(ROOT / "runs/train", "best.pt")]
    complete = True
    for weights in files:
        rows = export(weights, options, device)
        log_rows(rows)
        made = [row.path for row in rows[1:] if row.path]
        complete &= len(made) == len(rows) - 1
        if made:
            LOG.info("results are in %s; use them: python detect.py --weights %s", made[0].parent, quoted(made[0]))
    return 0 if complete else EXIT_INPUT


def quoted(path: Path) -> str:
    """A path as it is typed in a shell."""
    return shlex.quote(str(path))


def run(**options: Any) -> int:
    """Export from Python, with the options by their names: ``export.run(weights="best.pt", include=["onnx"])``."""
    return main(options_from(ExportOptions, options))


if __name__ == "__main__":
    sys.exit(run_script(main, ExportOptions))
