"""Evaluate a trained model on a data set.

    python val.py --weights runs/train/exp/weights/best.pt --data my.yaml
    python val.py --weights a.pt b.pt --augment             # an ensemble, every image in three views
    python val.py --weights best.onnx --data my.yaml        # an exported file
    python val.py --weights best.pt --save-json             # COCO's twelve metrics as well
    python val.py --task study --weights a.pt b.pt          # several models at many sizes, on one chart

Prints precision, recall, mAP@.5 and mAP@.5:.95; tables, curves, confusion matrix and images go to ``runs/val/exp``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from utils.config.cli import answer_early, run_script
from utils.config.options import ValOptions

answer_early(ValOptions, __name__)

import numpy as np
import torch

from models.dynamic import temperatures
from models.ensemble import Detector
from models.fuse import fuse
from models.user_modules import load_modules
from utils.checkpoint.detector import newest_checkpoint
from utils.checkpoint.official import fetch_official
from utils.config.dataset_spec import KEEP, SPLITS, DatasetSpec
from utils.config.keywords import as_options, options_from
from utils.config.options import to_plain
from utils.config.paths import ROOT, TRAIN_RUNS
from utils.core.device import select_device
from utils.core.errors import InputError
from utils.core.files import write_atomic
from utils.core.names import counted, file_name
from utils.core.nms import EVAL_THRESHOLDS, Thresholds
from utils.core.nms_defaults import CONF_THRES, IOU_THRES
from utils.core.output import OutputFolder, run_folder
from utils.core.seed import seed_everything
from utils.core.v61 import import_served
from utils.datasets.fetch import fetch_missing
from utils.datasets.labels.records import LabelRecord, LabelSet
from utils.datasets.labels.splits import load_labels
from utils.evaluation import EvalResult, Evaluator
from utils.evaluation.batches import validation_loader
from utils.evaluation.coco_results import (
    CocoResults,
    GroundTruth,
    find_annotations,
    ground_truth_from_labels,
    read_ground_truth,
)
from utils.evaluation.evaluator import Observer
from utils.evaluation.observers import BatchPlots, LabelFiles
from utils.evaluation.report import PLOT_FILES, log_coco_metrics, log_metrics, log_speed, save_plots
from utils.evaluation.study import STAGES, StudyLog, StudyRow, save_study, short_names, write_rows
from utils.evaluation.tables import write_class_table, write_metrics_json
from utils.evaluation.worst import WorstImages
from utils.inference import WeightsInfo, input_size, open_weights, use_half
from utils.inference.backends import FileBackend
from utils.metrics import match_as_v61, match_predictions
from utils.metrics.coco import INSTALL, CocoMetrics, coco_tool

LOG = logging.getLogger(__name__)


def choose_data(options: ValOptions, origin: WeightsInfo, known: DatasetSpec | None = None) -> DatasetSpec:
    """Return the data set of ``--data``, else that of the training, or the embedded one; ``known`` if it is given."""
    spec = known or DatasetSpec.load(options.data or origin.data or ROOT / "data/digits.yaml", options.single_cls)
    data = spec.source
    if spec.nc != origin.nc and not options.single_cls:
        classes = counted(spec.nc, "class")
        raise InputError(f"--data {data} has {classes}, the model {origin.nc}; give its own set, or --single-cls")
    if list(spec.names) != origin.names and not options.single_cls:
        LOG.warning("class names in %s differ from those in the weights file; the yaml's are shown", data)
    return spec


@dataclass(frozen=True)
class Subject:
    """A model and the data set it is evaluated on."""

    model: Detector | FileBackend
    spec: DatasetSpec
    labels: LabelSet
    device: torch.device

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True)
class Scores:
    """The results of the script for one model."""

    result: EvalResult
    spec: DatasetSpec
    coco: CocoMetrics | None = None


def open_subject(options: ValOptions, weights: Sequence[str], known: Subject | None = None) -> Subject:
    """Load a model, with fused norms, and the labels of the split, unless ``known`` has them."""
    device = known.device if known else select_device(options.device)
    model, origin = open_weights(weights, device, options.augment, options.dnn, options.data, options.trust)
    spec = choose_data(options, origin, known.spec if known else None)
    labels = known.labels if known else None
    if labels is None:
        split = options.task if options.task in SPLITS else "val"
        if options.download:
            limit = options.download_limit
            spec = fetch_missing(spec, [split], allow_scripts=options.allow_scripts, limit_gb=limit)
        cache_dir = Path(options.cache_dir) if options.cache_dir else None
        labels = load_labels(spec, split, single_cls=options.single_cls, cache_dir=cache_dir)
    fuse(model)
    return Subject(model, spec, labels, device)


def size_of(options: ValOptions, model: Detector | FileBackend) -> int:
    """Return the longer side of the images: that of ``--imgsz``, else the model's own.

    Raises:
        InputError: an exported file with one fixed size that is not a square.
    """
    height, width = input_size(model, () if options.imgsz is None else (options.imgsz,))
    if height != width and isinstance(model, FileBackend) and model.fixed_hw is not None:
        raise InputError(f"--weights {model.file}: takes {height} x {width}; val needs a file of a square size")
    return max(height, width)


def build_evaluator(options: ValOptions, subject: Subject, thresholds: Thresholds, pad: float = 0.5) -> Evaluator:
    """Build the evaluator of the split, with rectangular batches unless ``--no-rect`` or a file with one fixed size."""
    model = subject.model
    imgsz = size_of(options, model)
    one_size = isinstance(model, FileBackend) and model.fixed_hw is not None
    rect = options.rect is not False and not one_size
    loader = validation_loader(
        subject.labels.records,
        imgsz,
        int(model.stride.max()),
        batch_size=options.batch_size,
        workers=options.workers,
        rect=rect,
        pad=pad,
    )
    half = options.half and use_half(model, subject.device)
    return Evaluator(
        loader,
        subject.spec.nc,
        subject.device,
        thresholds,
        single_cls=options.single_cls,
        half=half,
        hybrid=options.save_hybrid,
        matcher=match_as_v61 if options.v61_matching else match_predictions,
    )


def evaluate_detector(options: ValOptions) -> Scores:
    """Evaluate one model (``--task train``, ``val``, ``test``) and write all results to the run folder."""
    subject = open_subject(options, options.weights)
    spec, records = subject.spec, subject.labels.records
    options = replace(options, imgsz=size_of(options, subject.model))  # the size in the report
    ground_truth = load_ground_truth(options, spec, records) if options.save_json else None
    thresholds = replace(EVAL_THRESHOLDS, conf=options.conf_thres, iou=options.iou_thres)
    evaluator = build_evaluator(options, subject, thresholds)
    with run_folder(options.project, options.name, options.exist_ok) as folder:
        output = OutputFolder(folder, partial(evaluation_inputs, options, subject))
        return evaluate_into(output, options, subject, evaluator, ground_truth)


def evaluation_inputs(options: ValOptions, subject: Subject) -> Iterator[str | Path]:
    """Yield the files that the script reads, which no output may replace."""
    yield from (options.annotations, *options.weights, *options.modules)
    yield subject.spec.source
    for record in subject.labels.records:
        yield from (record.image, record.label or record.image)


def evaluate_into(
    output: OutputFolder, options: ValOptions, subject: Subject, evaluator: Evaluator, ground_truth: GroundTruth | None
) -> Scores:
    """Evaluate, and write the results to a folder; result files of an earlier run are removed."""
    spec, folder = subject.spec, output.folder
    name = file_name(Path(options.weights[0]).stem if options.weights else "best", 200)
    predictions = f"{name}_predictions.json"
    for file in (*PLOT_FILES, "metrics.csv", "metrics.json", "images.csv", "annotations.json", predictions):
        output.path(file).unlink(missing_ok=True)
    worst, collected = WorstImages(spec.names), None
    observers: list[Observer] = [BatchPlots(folder, spec.names), worst]
    if options.save_txt or options.save_hybrid:
        observers.append(LabelFiles(output.below("labels"), options.save_conf))
    elif options.save_conf:
        LOG.warning("--save-conf does nothing without --save-txt or --save-hybrid")
    if ground_truth is not None:
        collected = CocoResults(ground_truth)
        observers.append(collected)
    result = evaluator.run(subject.model, observers=observers)
    log_metrics(result, spec.names, options.verbose)
    log_speed(result, f"batch {options.batch_size}, {options.imgsz} px")
    coco = save_coco(collected, folder, predictions) if collected else None
    save_plots(result, spec.names, folder)
    write_class_table(folder / "metrics.csv", result, spec.names)
    write_metrics_json(folder / "metrics.json", result, spec.names, to_plain(options), coco)
    worst.save(folder)
    LOG.info("results are in %s", folder)
    return Scores(result, spec, coco)


def load_ground_truth(options: ValOptions, spec: DatasetSpec, records: Sequence[LabelRecord]) -> GroundTruth:
    """Read the annotation file of ``--annotations`` or of the usual place, else make one from the labels."""
    file = Path(options.annotations) if options.annotations else None
    if file is None and not options.single_cls:
        file = find_annotations(spec, options.task)
    LOG.info("COCO metrics: annotations %s", file or "made from the labels")
    if file is None:
        return ground_truth_from_labels(records, spec.names)
    return read_ground_truth(file, records, spec.names, keep_crowds=spec.crowd == KEEP)


def save_coco(collected: CocoResults, folder: Path, name: str) -> CocoMetrics | None:
    """Write the results, and annotations made from labels; return COCO's metrics if a COCO evaluator is installed."""
    collected.write(folder / name)
    if collected.ground_truth.content is not None:
        content = json.dumps(collected.ground_truth.content, ensure_ascii=False)
        write_atomic(folder / "annotations.json", content.encode("utf-8", "surrogateescape"))
    if coco_tool() is None:
        LOG.warning("no COCO metrics: no COCO evaluator is installed (%s)", INSTALL)
        return None
    metrics = collected.metrics()
    log_coco_metrics(metrics)
    return metrics


def evaluate_several(options: ValOptions) -> None:
    """Evaluate several models separately, at one image size (``--task speed``) or many (``--task study``)."""
    speed = options.task == "speed"
    if any((options.save_txt, options.save_hybrid, options.save_conf, options.save_json)):
        LOG.warning("--task %s writes no detections: the --save options do nothing", options.task)
    # Speed is measured with the thresholds of detect.py: thousands of candidates would take most of the time.
    conf = CONF_THRES if speed and "conf_thres" not in options.given else options.conf_thres
    iou = IOU_THRES if speed and "iou_thres" not in options.given else options.iou_thres
    options = replace(options, save_hybrid=False)
    thresholds = replace(EVAL_THRESHOLDS, conf=conf, iou=iou)
    files = [Path(name) for name in options.weights] or [newest_checkpoint(TRAIN_RUNS, "best.pt")]
    rows, subject = [], None
    names = short_names(files)
    log = StudyLog(names)
    for file, name in zip(files, names):
        subject = open_subject(options, (str(file),), subject)
        for side in (options.imgsz,) if speed else options.study_sizes:
            imgsz = size_of(replace(options, imgsz=side), subject.model)
            sized = replace(options, imgsz=imgsz)
            evaluator = build_evaluator(sized, subject, thresholds, pad=0.0 if speed else 0.5)
            run_warm_up(subject, options.batch_size, imgsz)
            dynamic = bool(temperatures(subject.model))
            rows.append(StudyRow(name, dynamic, subject.parameters, imgsz, evaluator.run(subject.model)))
            log.add(rows[-1])
    LOG.info("batch %d, conf %g, IoU %g, %s", options.batch_size, conf, iou, subject.device if subject else "")
    with run_folder(options.project, options.name, options.exist_ok) as folder:
        if speed:
            write_rows(rows, folder / "speed.csv")
        elif subject:
            save_study(rows, subject.spec.source.stem, folder)
    LOG.info("results are in %s", folder)


@torch.no_grad()
def run_warm_up(subject: Subject, batch_size: int, imgsz: int) -> None:
    """Run the model once without timing: the first run allocates memory and selects kernels."""
    subject.model.eval()
    images = 1 if subject.device.type == "cpu" else batch_size  # a CPU needs no more
    subject.model(torch.zeros(images, 3, imgsz, imgsz, device=subject.device))


def main(options: ValOptions | argparse.Namespace) -> None:
    options = as_options(ValOptions, options)
    load_modules(options.modules)
    fetch_official(options.weights, options.download)
    seed_everything(options.seed)
    if options.task in SPLITS:
        evaluate_detector(options)
    else:
        evaluate_several(options)


def run(**options: Any) -> tuple[tuple[float, ...], np.ndarray, tuple[float, ...]]:
    """Evaluate from Python, with the options by their names: ``val.run(weights="best.pt", data="my.yaml")``.

    Returns:
        (precision, recall, mAP@.5, mAP@.5:.95, box, objectness and class loss: 0 here), mAP@.5:.95 of every class [nc],
        milliseconds per image for pre-processing, inference and NMS. With ``save_json`` the two mAP are COCO's, as in
        v6.1, if a COCO evaluator is installed.

    Raises:
        InputError: an option is wrong, or ``task`` is speed or study, which have several results.
    """
    record = options_from(ValOptions, options)
    if record.task not in SPLITS:
        raise InputError(f"task '{record.task}' is for the command line; val.run takes {', '.join(SPLITS)}")
    load_modules(record.modules)
    fetch_official(record.weights, record.download)
    seed_everything(record.seed)
    scores = evaluate_detector(record)
    result, map50, map_ = scores.result, scores.result.map50, scores.result.map
    if scores.coco is not None:
        map_, map50 = scores.coco.values[:2]
    metrics = (result.precision, result.recall, map50, map_, *result.losses)
    return metrics, result.map_per_class(scores.spec.nc), tuple(result.ms_per_image[stage] for stage in STAGES)


def __getattr__(name: str) -> Any:
    """Return a name that scripts for v6.1 import from here, see ``utils/core/v61.py``."""
    return import_served("val", name)


if __name__ == "__main__":
    sys.exit(run_script(main, ValOptions))
