"""Score a trained model on a labelled set.

    python val.py --weights runs/train/exp/weights/best.pt --data my.yaml
    python val.py --weights a.pt b.pt --augment             # an ensemble, every image in three views
    python val.py --weights best.onnx --data my.yaml        # an exported file
    python val.py --weights best.pt --save-json             # COCO's twelve figures as well
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

import numpy as np
import torch

from models.dynamic import temperatures
from models.ensemble import Detector
from models.fuse import fuse
from models.user_modules import load_modules
from utils.checkpoint.find import newest_checkpoint
from utils.config.cli import run_script
from utils.config.dataset_spec import KEEP, SPLITS, DatasetSpec
from utils.config.keywords import as_options, options_from
from utils.config.options import ValOptions, to_plain
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
from utils.datasets.dataset_labels import load_labels
from utils.datasets.fetch import fetch_missing
from utils.datasets.labels import LabelRecord, LabelSet
from utils.evaluation import EvalResult, Evaluator
from utils.evaluation.batches import validation_loader
from utils.evaluation.coco_results import CocoResults, Truth, find_annotations, make_truth, read_truth
from utils.evaluation.evaluator import Observer
from utils.evaluation.observers import BatchPlots, LabelFiles
from utils.evaluation.report import FIGURES, log_coco, log_speed, log_table, save_plots
from utils.evaluation.study import STAGES, StudyLog, StudyRow, save_study, short_names, write_rows
from utils.evaluation.tables import write_csv, write_json
from utils.evaluation.worst import WorstImages
from utils.inference import WeightsInfo, input_size, open_weights
from utils.inference.backends import FileBackend
from utils.metrics import match_as_v61, match_predictions
from utils.metrics.coco import INSTALL, CocoFigures, coco_tool

LOG = logging.getLogger(__name__)


def choose_data(options: ValOptions, origin: WeightsInfo, known: DatasetSpec | None = None) -> DatasetSpec:
    """The set in use, else the one named on the command line, that the model was trained on, or the embedded one."""
    spec = known or DatasetSpec.load(options.data or origin.data or ROOT / "data/digits.yaml", options.single_cls)
    data = spec.source
    if spec.nc != origin.nc and not options.single_cls:
        raise InputError(
            f"--data {data} has {counted(spec.nc, 'class')}, the model {origin.nc}; give its own set, or --single-cls"
        )  # fmt: skip
    if list(spec.names) != origin.names and not options.single_cls:
        LOG.warning("class names in %s differ from those in the weights file; the yaml's are shown", data)
    return spec


@dataclass(frozen=True)
class Subject:
    """What is scored, and on what."""

    model: Detector | FileBackend
    spec: DatasetSpec
    labels: LabelSet
    device: torch.device

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True)
class Scores:
    """The outcome of the script for one detector."""

    result: EvalResult
    spec: DatasetSpec
    coco: CocoFigures | None = None


def open_subject(options: ValOptions, weights: Sequence[str], known: Subject | None = None) -> Subject:
    """Load a detector (norms folded in) and, unless ``known`` has them already, the labels of the split."""
    device = known.device if known else select_device(options.device)
    model, origin = open_weights(weights, device, options.augment, options.dnn, options.data, options.trust)
    spec = choose_data(options, origin, known.spec if known else None)
    labels = known.labels if known else None
    if labels is None:
        split = options.task if options.task in SPLITS else "val"
        if options.download:
            spec = fetch_missing(
                spec, [split], allow_scripts=options.allow_scripts, limit_gb=options.download_limit
            )  # fmt: skip
        cache_dir = Path(options.cache_dir) if options.cache_dir else None
        labels = load_labels(spec, split, single_cls=options.single_cls, cache_dir=cache_dir)
    fuse(model)
    return Subject(model, spec, labels, device)


def size_of(options: ValOptions, model: Detector | FileBackend) -> int:
    """The longer side to score at: that of ``--imgsz``, else the model's own.

    Raises:
        InputError: an exported file that takes one size only, and no square.
    """
    height, width = input_size(model, () if options.imgsz is None else (options.imgsz,))
    if height != width and isinstance(model, FileBackend) and model.fixed_hw is not None:
        raise InputError(f"--weights {model.file}: takes {height} x {width}; val needs a file of a square size")
    return max(height, width)


def build_evaluator(options: ValOptions, subject: Subject, thresholds: Thresholds, pad: float = 0.5) -> Evaluator:
    """An evaluator of the split: rectangular images, unless ``--no-rect`` or an exported file takes one size only."""
    model = subject.model
    imgsz = size_of(options, model)
    one_size = isinstance(model, FileBackend) and model.fixed_hw is not None
    loader = validation_loader(
        subject.labels.records, imgsz, int(model.stride.max()), batch_size=options.batch_size,
        workers=options.workers, rect=options.rect is not False and not one_size, pad=pad,
    )  # fmt: skip
    half = options.half and subject.device.type != "cpu"
    if options.half and not half:
        LOG.warning("--half needs a GPU: running in float32")
    return Evaluator(
        loader, subject.spec.nc, subject.device, thresholds, single_cls=options.single_cls, half=half,
        hybrid=options.save_hybrid, matcher=match_as_v61 if options.v61_matching else match_predictions,
    )  # fmt: skip


def score(options: ValOptions) -> Scores:
    """``--task train``, ``val``, ``test``: one detector, with everything that is known about its errors."""
    subject = open_subject(options, options.weights)
    spec, records = subject.spec, subject.labels.records
    options = replace(options, imgsz=size_of(options, subject.model))  # the size that is told at the end
    truth = find_truth(options, spec, records) if options.save_json else None
    thresholds = replace(EVAL_THRESHOLDS, conf=options.conf_thres, iou=options.iou_thres)
    evaluator = build_evaluator(options, subject, thresholds)
    with run_folder(options.project, options.name, options.exist_ok) as folder:
        return score_in(
            OutputFolder(folder, partial(files_in_use, options, subject)), options, subject, evaluator, truth
        )


def files_in_use(options: ValOptions, subject: Subject) -> Iterator[str | Path]:
    """The files that are read, which no output may replace."""
    yield from (options.annotations, *options.weights, *options.modules)
    yield subject.spec.source
    for record in subject.labels.records:
        yield from (record.image, record.label or record.image)


def score_in(
    output: OutputFolder, options: ValOptions, subject: Subject, evaluator: Evaluator, truth: Truth | None
) -> Scores:
    """Score, and write what is found into a folder; of an earlier run there no figure or page stays."""
    spec, folder = subject.spec, output.folder
    name = file_name(Path(options.weights[0]).stem if options.weights else "best", 200)
    for file in (
        *FIGURES,
        "metrics.csv",
        "metrics.json",
        "images.csv",
        "annotations.json",
        f"{name}_predictions.json",
    ):
        output.path(file).unlink(missing_ok=True)
    worst, collected = WorstImages(spec.names), None
    observers: list[Observer] = [BatchPlots(folder, spec.names), worst]
    if options.save_txt or options.save_hybrid:
        observers.append(LabelFiles(output.below("labels"), options.save_conf))
    elif options.save_conf:
        LOG.warning("--save-conf does nothing without --save-txt or --save-hybrid")
    if truth is not None:
        collected = CocoResults(truth)
        observers.append(collected)
    result = evaluator.run(subject.model, observers=observers)
    log_table(result, spec.names, options.verbose)
    log_speed(result, f"batch {options.batch_size}, {options.imgsz} px")
    coco = save_coco(collected, folder, f"{name}_predictions.json") if collected else None
    save_plots(result, spec.names, folder)
    write_csv(folder / "metrics.csv", result, spec.names)
    write_json(folder / "metrics.json", result, spec.names, to_plain(options), coco)
    worst.save(folder)
    LOG.info("results are in %s", folder)
    return Scores(result, spec, coco)


def find_truth(options: ValOptions, spec: DatasetSpec, records: Sequence[LabelRecord]) -> Truth:
    """The annotation file that is named or lies where COCO has it, else one made from the labels."""
    file = Path(options.annotations) if options.annotations else None
    if file is None and not options.single_cls:
        file = find_annotations(spec, options.task)
    LOG.info("COCO figures: annotations %s", file or "made from the labels")
    if file is None:
        return make_truth(records, spec.names)
    return read_truth(file, records, spec.names, keep_crowds=spec.crowd == KEEP)


def save_coco(collected: CocoResults, folder: Path, name: str) -> CocoFigures | None:
    """Write the results, and the annotations if they were made here; the figures if there is an evaluator."""
    collected.write(folder / name)
    if collected.truth.content is not None:
        content = json.dumps(collected.truth.content, ensure_ascii=False)
        write_atomic(folder / "annotations.json", content.encode("utf-8", "surrogateescape"))
    if coco_tool() is None:
        LOG.warning("no COCO figures: no evaluator is installed (%s)", INSTALL)
        return None
    figures = collected.figures()
    log_coco(figures)
    return figures


def compare(options: ValOptions) -> None:
    """``--task speed`` and ``study``: every checkpoint by itself, at one size or at many, without images."""
    speed = options.task == "speed"
    saving = (options.save_txt, options.save_hybrid, options.save_conf, options.save_json)
    if any(saving):
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
            warm_up(subject, options.batch_size, imgsz)
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
def warm_up(subject: Subject, batch_size: int, imgsz: int) -> None:
    """One pass that is not timed: the first allocates memory and chooses kernels."""
    subject.model.eval()
    images = 1 if subject.device.type == "cpu" else batch_size  # a CPU has little to prepare, and takes long
    subject.model(torch.zeros(images, 3, imgsz, imgsz, device=subject.device))


def main(options: ValOptions | argparse.Namespace) -> None:
    options = as_options(ValOptions, options)
    load_modules(options.modules)
    seed_everything(options.seed)
    if options.task in SPLITS:
        score(options)
    else:
        compare(options)


def run(**options: Any) -> tuple[tuple[float, ...], np.ndarray, tuple[float, ...]]:
    """Score from Python, with the options by their names: ``val.run(weights="best.pt", data="my.yaml")``.

    Returns:
        (precision, recall, mAP@.5, mAP@.5:.95, box, objectness and class loss: 0 here), mAP@.5:.95 of every class [nc],
        milliseconds per image for pre-processing, inference and suppression. With ``save_json`` the two mAP are
        COCO's, as in v6.1, where there is an evaluator.

    Raises:
        InputError: an option is wrong, or ``task`` is speed or study, which have no single answer.
    """
    record = options_from(ValOptions, options)
    if record.task not in SPLITS:
        raise InputError(f"task '{record.task}' is for the command line; val.run takes {', '.join(SPLITS)}")
    load_modules(record.modules)
    seed_everything(record.seed)
    found = score(record)
    result, map50, map_ = found.result, found.result.map50, found.result.map
    if found.coco is not None:
        map_, map50 = found.coco.values[:2]
    figures = (result.precision, result.recall, map50, map_, *result.losses)
    return figures, result.maps(found.spec.nc), tuple(result.ms_per_image[stage] for stage in STAGES)


def __getattr__(name: str) -> Any:
    """Names that scripts import from here, see ``utils/compat``."""
    return import_served("val", name)


if __name__ == "__main__":
    sys.exit(run_script(main, ValOptions))
