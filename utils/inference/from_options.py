"""From the options of detect.py to what finds the objects."""

from __future__ import annotations

import logging
from pathlib import Path

from models.ensemble import Detector
from utils.checkpoint.find import newest_checkpoint
from utils.checkpoint.format import FORMAT, load_checkpoint, strip_checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.detect_options import DetectOptions
from utils.config.paths import ROOT
from utils.core.device import select_device
from utils.core.errors import InputError
from utils.core.names import counted
from utils.inference.backends import FileBackend, format_of
from utils.inference.predictor import Predictor
from utils.inference.weights import input_size, open_weights

LOG = logging.getLogger(__name__)
RUNS = ROOT / "runs/train"


def build_predictor(options: DetectOptions) -> Predictor:
    """The model of ``--weights``, ready for images.

    Raises:
        FileNotFoundError, InputError: a file is missing or unreadable, or an option does not suit the model.
    """
    device = select_device(options.device)
    model, _ = open_weights(options.weights, device, RUNS, options.augment, options.dnn, options.data, options.trust)
    imgsz = input_size(model, options.imgsz)
    for index in options.classes or ():
        if index >= model.nc:
            raise InputError(f"--classes {index}: the model has {counted(model.nc, 'class')}, 0 to {model.nc - 1}")
    half = options.half and device.type != "cpu"
    if options.half and not half:
        LOG.warning("--half needs a GPU: running in float32")
    predictor = Predictor(
        model, device, imgsz, conf=options.conf_thres, iou=options.iou_thres, max_det=options.max_det,
        classes=options.classes, agnostic=options.agnostic_nms, half=half,
    )  # fmt: skip
    if options.data:
        predictor.names = class_names(model, options.data)
    return predictor


def class_names(model: Detector | FileBackend, data: str) -> list[str]:
    """The names of the classes: those of the file, or those of the data yaml where the file has placeholders only.

    Raises:
        FileNotFoundError, InputError: no such yaml, or one with another number of classes.
    """
    names, others = list(model.names), list(DatasetSpec.load(data).names)
    if len(others) != len(names):
        raise InputError(f"--data {data} has {counted(len(others), 'class')}, the model {len(names)}")
    if all(name in ("", str(index), f"class{index}") for index, name in enumerate(names)):
        return others
    if names != others:
        index = next(i for i, pair in enumerate(zip(names, others)) if pair[0] != pair[1])
        LOG.warning(
            "--data %s calls class %d '%s', the file of --weights '%s': the names of the file are used",
            data, index, others[index], names[index],
        )  # fmt: skip
    return names


def strip_weights(options: DetectOptions) -> None:
    """``--update``: take the optimizer out of the files that were used. Official files are left as they are."""
    for file in options.weights or (str(newest_checkpoint(RUNS, "best.pt")),):
        if format_of(file) is not None:
            LOG.warning("--update: %s is an exported file and is left as it is", file)
            continue
        checkpoint = load_checkpoint(file)
        if checkpoint.origin != FORMAT:
            LOG.warning("--update: %s is an official YOLOv5 file and is left as it is", file)
        elif not checkpoint.resumable and checkpoint.ema is None:
            LOG.info("--update: %s holds no optimizer", file)
        else:
            before = Path(file).stat().st_size / 1e6
            LOG.info("--update: %s, %.1f MB before, %.1f MB now", file, before, strip_checkpoint(Path(file)))
