"""From the files of ``--weights``, of whatever format, to the one thing that finds boxes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.ensemble import Detector, Ensemble
from utils.checkpoint.detector import load_detector
from utils.config.sizes import chosen_size
from utils.core.errors import InputError
from utils.inference.backends import FileBackend, format_of, open_exported

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What the first file of ``--weights`` says: class names, and the data set it was trained on ("" if unknown)."""

    names: list[str]
    data: str = ""

    @property
    def nc(self) -> int:
        return len(self.names)


def open_weights(
    weights: str | Path | Sequence[str | Path],
    device: torch.device,
    runs: Path,
    augment: bool = False,
    dnn: bool = False,
    data: str | Path | None = None,
    trust: bool = False,
) -> tuple[Detector | FileBackend, Origin]:
    """Load checkpoints as :func:`utils.checkpoint.detector.load_detector` does, or one exported file.

    Args:
        dnn: run an ``.onnx`` file by OpenCV.
        data: data yaml that names the classes of an exported file that does not.
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
        detector, checkpoint = load_detector(files, device, runs, augment)
        return detector, Origin(list(checkpoint.names), str(checkpoint.options.get("data") or ""))
    if len(files) > 1:
        raise InputError(f"--weights {exported[0]}: an ensemble is made of .pt files; give an exported file alone")
    if augment:
        raise InputError(f"--augment needs a .pt file; --weights names {exported[0]}")
    backend = open_exported(exported[0], device, dnn, data, trust)
    info = backend.info
    LOG.info(
        "weights: %s, %s%s", exported[0], _sizes(backend),
        "" if info.temperature is None else f", dynamic layers at T={info.temperature:g}, form {info.form}",
    )  # fmt: skip
    return backend, Origin(list(backend.names))


def _sizes(backend: FileBackend) -> str:
    info = backend.info
    sides = [axis if axis in info.dynamic else side for axis, side in zip(("height", "width"), info.imgsz)]
    precision = ", half precision" if info.half else ""
    inside = f", NMS inside at confidence {info.nms_conf:g}, IoU {info.nms_iou:g}" if info.nms else ""
    return f"input {info.fixed_batch or 'batch'}x3x{sides[0]}x{sides[1]}{precision}{inside}"


def input_size(model: Detector | FileBackend, sides: Sequence[int]) -> tuple[int, int]:
    """(height, width) to run at: the one size an exported file takes, else as :func:`chosen_size` says.

    Args:
        sides: those of ``--imgsz``; empty: not given.
    """
    if isinstance(model, FileBackend) and model.fixed_hw is not None:
        if sides and (sides[0], sides[-1]) != model.fixed_hw:
            height, width = model.fixed_hw
            LOG.warning("%s takes images of %d x %d only: running at that size", model.file, height, width)
        return model.fixed_hw
    recorded = [member.imgsz for member in model.members] if isinstance(model, Ensemble) else [model.imgsz]
    return chosen_size(sides, recorded, int(model.stride.max()))
