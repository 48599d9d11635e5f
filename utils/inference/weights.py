"""Open the files of ``--weights``: checkpoints, an ensemble of them, or one exported file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.ensemble import Detector, Ensemble
from utils.checkpoint.detector import load_detector, newest_checkpoint
from utils.checkpoint.format import CHECKPOINT_FORMAT, load_checkpoint, strip_checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.detect_options import DetectOptions
from utils.config.paths import TRAIN_RUNS
from utils.config.sizes import chosen_size
from utils.core.device import select_device
from utils.core.errors import InputError, suggestion
from utils.core.names import counted
from utils.inference.backends import FileBackend, format_of, open_exported
from utils.inference.predictor import Predictor, Thresholds

LOG = logging.getLogger(__name__)
_SHOWN_NAMES = 20  # in a message


@dataclass(frozen=True)
class WeightsInfo:
    """What the first file of ``--weights`` records: class names, and the data set it was trained on ("" if unknown)."""

    names: list[str]
    data: str = ""

    @property
    def nc(self) -> int:
        return len(self.names)


def open_weights(
    weights: str | Path | Sequence[str | Path],
    device: torch.device,
    augment: bool = False,
    dnn: bool = False,
    data: str | Path | None = None,
    trust: bool = False,
) -> tuple[Detector | FileBackend, WeightsInfo]:
    """Load checkpoints as :func:`utils.checkpoint.detector.load_detector` does, or one exported file.

    Args:
        weights: file, or files of an ensemble; empty: the newest checkpoint below ``runs/train``.
        device: where the model runs.
        augment: test-time augmentation, three views of each image.
        dnn: run an ``.onnx`` file by OpenCV.
        data: data yaml that names the classes of an exported file without class names.
        trust: open an exported file that may run code of its maker.

    Raises:
        FileNotFoundError, InputError: a file is missing, unreadable or of an unknown format, or options do not fit it.
    """
    given = [weights] if isinstance(weights, (str, Path)) else [name for name in weights if str(name)]
    files = [os.path.expanduser(file) for file in given]  # noqa: PTH111  ("" stays "")
    exported = [file for file in files if str(file) and format_of(file) is not None]
    if not exported:
        if dnn:
            raise InputError("--dnn is for .onnx files; --weights names none")
        detector, checkpoint = load_detector(files, device, TRAIN_RUNS, augment)
        return detector, WeightsInfo(list(checkpoint.names), str(checkpoint.options.get("data") or ""))
    if len(files) > 1:
        raise InputError(f"--weights {exported[0]}: an ensemble is made of .pt files; give an exported file alone")
    if augment:
        raise InputError(f"--augment needs a .pt file; --weights names {exported[0]}")
    backend = open_exported(exported[0], device, dnn, data, trust)
    info = backend.info
    dynamic = "" if info.temperature is None else f", dynamic layers at T={info.temperature:g}, form {info.form}"
    LOG.info("weights: %s, %s%s", exported[0], _input_text(backend), dynamic)
    return backend, WeightsInfo(list(backend.names))


def _input_text(backend: FileBackend) -> str:
    """Return the shape and precision of the input of an exported file, and its NMS, as text."""
    info = backend.info
    sides = [axis if axis in info.dynamic else side for axis, side in zip(("height", "width"), info.imgsz)]
    precision = ", half precision" if info.half else ""
    inside = f", NMS inside at confidence {info.nms_conf:g}, IoU {info.nms_iou:g}" if info.nms else ""
    return f"input {info.fixed_batch or 'batch'}x3x{sides[0]}x{sides[1]}{precision}{inside}"


def use_half(model: Detector | FileBackend, device: torch.device) -> bool:
    """Apply ``--half``; True if model and images shall have half precision, which needs a GPU.

    On a CPU an OpenVINO model computes in bfloat16 if the processor has it. Otherwise a warning says that ``--half``
    has no effect.
    """
    if device.type != "cpu":
        return True
    if isinstance(model, FileBackend) and model.use_bfloat16():
        LOG.info("--half: OpenVINO computes in bfloat16")
    elif isinstance(model, FileBackend) and format_of(model.file) == format_of("a_openvino_model"):
        LOG.warning("--half has no effect: this processor has no bfloat16; running in float32")
    else:
        LOG.warning("--half needs a GPU: running in float32")
    return False


def input_size(model: Detector | FileBackend, sides: Sequence[int]) -> tuple[int, int]:
    """Return (height, width) to run at: the one size an exported file takes, else that of :func:`chosen_size`.

    Args:
        model: as opened.
        sides: those of ``--imgsz``; empty: not given.
    """
    if isinstance(model, FileBackend) and model.fixed_hw is not None:
        if sides and (sides[0], sides[-1]) != model.fixed_hw:
            height, width = model.fixed_hw
            LOG.warning("%s takes images of %d x %d only: running at that size", model.file, height, width)
        return model.fixed_hw
    recorded = [member.imgsz for member in model.members] if isinstance(model, Ensemble) else [model.imgsz]
    return chosen_size(sides, recorded, int(model.stride.max()))


def build_predictor(options: DetectOptions) -> Predictor:
    """Return the model of ``--weights``, ready for images.

    Raises:
        FileNotFoundError, InputError: a file is missing or unreadable, or an option does not suit the model.
    """
    device = select_device(options.device)
    model, _ = open_weights(options.weights, device, options.augment, options.dnn, options.data, options.trust)
    imgsz = input_size(model, options.imgsz)
    names = _names_with_data(list(model.names), options.data) if options.data else list(model.names)
    classes = None if options.classes is None else class_numbers(options.classes, names)
    half = options.half and use_half(model, device)
    thresholds = Thresholds(options.conf_thres, options.iou_thres, options.max_det, classes, options.agnostic_nms)
    predictor = Predictor(model, device, imgsz, thresholds, half)
    if options.data:
        predictor.names = names
    return predictor


def class_numbers(chosen: Sequence[int | str], names: Sequence[str]) -> tuple[int, ...]:
    """Return the classes of ``--classes`` as numbers.

    Args:
        chosen: numbers, and names in upper or lower case.
        names: class names of the model.

    Raises:
        InputError: no such class.
    """
    known = {name.casefold(): number for number, name in reversed(list(enumerate(names)))}
    known |= {name: number for number, name in reversed(list(enumerate(names)))}  # as written comes first
    numbers = []
    for item in chosen:
        number = item if isinstance(item, int) else known.get(item, known.get(item.casefold(), -1))
        if not 0 <= number < len(names):
            hint = suggestion(item, names) if isinstance(item, str) else ""
            there = f"{counted(len(names), 'class')}, 0 to {len(names) - 1}: {', '.join(names[:_SHOWN_NAMES])}"
            more = ", ..." if len(names) > _SHOWN_NAMES else ""
            raise InputError(f"--classes {item}: no such class{hint}; the model has {there}{more}")
        numbers.append(number)
    return tuple(numbers)


def _names_with_data(names: list[str], data: str) -> list[str]:
    """Return the class names of the file, or those of the data yaml where the file has placeholders only.

    Raises:
        FileNotFoundError, InputError: no such yaml, or one with another number of classes.
    """
    others = list(DatasetSpec.load(data).names)
    if len(others) != len(names):
        raise InputError(f"--data {data} has {counted(len(others), 'class')}, the model {len(names)}")
    if all(name in ("", str(index), f"class{index}") for index, name in enumerate(names)):
        return others
    index = next((i for i, (name, other) in enumerate(zip(names, others)) if name != other), None)
    if index is not None:
        text = "--data %s calls class %d '%s', the file of --weights '%s': the names of the file are used"
        LOG.warning(text, data, index, others[index], names[index])
    return names


def strip_weights(options: DetectOptions) -> None:
    """``--update``: remove the optimizer from the files that were used. Official files are not changed."""
    for file in options.weights or (str(newest_checkpoint(TRAIN_RUNS, "best.pt")),):
        if format_of(file) is not None:
            LOG.warning("--update: %s is an exported file and is left as it is", file)
            continue
        checkpoint = load_checkpoint(file)
        if checkpoint.origin != CHECKPOINT_FORMAT:
            LOG.warning("--update: %s is an official YOLOv5 file and is left as it is", file)
        elif not checkpoint.resumable and checkpoint.ema is None:
            LOG.info("--update: %s holds no optimizer", file)
        else:
            before = Path(file).stat().st_size / 1e6
            LOG.info("--update: %s, %.1f MB before, %.1f MB now", file, before, strip_checkpoint(Path(file)))
