"""Score a trained model on a labelled set.

    python val.py --weights runs/train/exp/weights/best.pt --data my.yaml
    python val.py --weights a.pt b.pt --augment             # an ensemble, every picture in three views
    python val.py --weights best.onnx --data my.yaml        # an exported file

Prints precision, recall, mAP@.5 and mAP@.5:.95; curves, confusion matrix and pictures go to ``runs/val/exp``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.ensemble import Detector
from models.fuse import fuse
from models.user_modules import load_modules
from utils.config.cli import run_script
from utils.config.dataset_spec import DatasetSpec
from utils.config.keywords import options_from
from utils.config.options import ValOptions
from utils.config.paths import ROOT
from utils.datasets.dataset import DetectionDataset
from utils.datasets.fetch import fetch_missing
from utils.datasets.labels import LabelSet
from utils.datasets.loader import build_loader
from utils.datasets.prepare import load_labels
from utils.device import select_device
from utils.errors import InputError
from utils.evaluation import EvalResult, Evaluator, NmsSettings
from utils.evaluation.observers import BatchPlots, LabelFiles
from utils.evaluation.report import log_speed, log_table, save_plots
from utils.files import increment_path
from utils.inference import Origin, input_size, open_weights
from utils.inference.backends import FileBackend

LOG = logging.getLogger(__name__)


def choose_data(options: ValOptions, origin: Origin) -> DatasetSpec:
    """The set named on the command line, else the one the model was trained on, else the embedded one."""
    data = options.data or origin.data or ROOT / "data/digits.yaml"
    spec = DatasetSpec.load(data, options.single_cls)
    if spec.nc != origin.nc and not options.single_cls:
        raise InputError(
            f"--data {data} has {spec.nc} classes, the model {origin.nc}; give its own set, or --single-cls"
        )
    if list(spec.names) != origin.names and not options.single_cls:
        LOG.warning("class names in %s differ from those in the weights file; the yaml's are shown", data)
    return spec


def evaluate(
    options: ValOptions,
    model: Detector | FileBackend,
    spec: DatasetSpec,
    labels: LabelSet,
    device: torch.device,
    folder: Path,
) -> EvalResult:
    """Score ``model`` on a split; pictures of the first batches go to ``folder``.

    Batches are rectangular, but square for an exported file that takes one size only.
    """
    stride = int(model.stride.max())
    imgsz, width = input_size(model, (options.imgsz,))
    if imgsz != width:
        raise InputError(f"--weights {options.weights[0]}: takes {imgsz} x {width}; val needs a file of a square size")
    rect = not (isinstance(model, FileBackend) and model.fixed_hw)
    dataset = DetectionDataset(
        labels.records, imgsz, rect=rect, batch_size=options.batch_size, stride=stride, pad=0.5
    )  # fmt: skip
    half = options.half and device.type != "cpu"
    if options.half and not half:
        LOG.warning("--half needs a GPU: running in float32")
    fuse(model)
    evaluator = Evaluator(
        build_loader(dataset, batch_size=options.batch_size, workers=options.workers),
        spec.nc, device, NmsSettings(options.conf_thres, options.iou_thres),
        single_cls=options.single_cls, half=half,
    )  # fmt: skip
    observers: list[BatchPlots | LabelFiles] = [BatchPlots(folder, spec.names)]
    if options.save_txt:
        observers.append(LabelFiles(folder / "labels", options.save_conf))
    return evaluator.run(model, observers=observers)


def score(options: ValOptions) -> tuple[EvalResult, DatasetSpec]:
    """The whole script: load, evaluate, report."""
    load_modules(options.modules)
    device = select_device(options.device)
    model, origin = open_weights(
        options.weights, device, ROOT / "runs/train", options.augment, options.dnn, options.data
    )
    spec = choose_data(options, origin)
    if options.download:
        spec = fetch_missing(
            spec, [options.task], allow_scripts=options.allow_scripts, limit_gb=options.download_limit
        )  # fmt: skip
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    labels = load_labels(spec, options.task, single_cls=options.single_cls, cache_dir=cache_dir)
    folder = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
    result = evaluate(options, model, spec, labels, device, folder)
    log_table(result, spec.names, options.verbose)
    log_speed(result, f"batch {options.batch_size}, {options.imgsz} px")
    save_plots(result, spec.names, folder)
    LOG.info("results are in %s", folder)
    return result, spec


def main(options: ValOptions) -> None:
    score(options)


def run(**options: Any) -> tuple[tuple[float, ...], np.ndarray, tuple[float, ...]]:
    """Score from Python, with the options by their names: ``val.run(weights="best.pt", data="my.yaml")``.

    Returns:
        (precision, recall, mAP@.5, mAP@.5:.95, box, objectness and class loss: 0 here), mAP@.5:.95 of every class [nc],
        milliseconds per picture for pre-processing, inference and suppression.
    """
    result, spec = score(options_from(ValOptions, options))
    figures = (result.precision, result.recall, result.map50, result.map, *result.losses)
    return figures, result.maps(spec.nc), tuple(result.ms_per_image.values())


if __name__ == "__main__":
    sys.exit(run_script(main, ValOptions))
