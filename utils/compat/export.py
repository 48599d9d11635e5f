"""v6.1's functions of ``export.py``, one per format. Each file is held against PyTorch before it is kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from models.yolo import Model
from utils.config.export_options import ELSEWHERE, FORMATS, ExportOptions
from utils.config.keywords import options_from, parse_namespace
from utils.core.errors import InputError
from utils.core.packages import require
from utils.export.job import Job
from utils.export.report import Row
from utils.export.run import EXPORTERS, export_all

_NO_GPU = ("coreml", "tflite", "edgetpu", "ncnn", "executorch")


def parse_opt() -> argparse.Namespace:
    """The options of the command line, for ``export.main``."""
    return parse_namespace(ExportOptions)


def export_formats() -> Any:
    """A pandas.DataFrame with a row per format: its name, the argument of ``--include``, the ending, whether for GPUs.

    Raises:
        InputError: pandas is not installed.
    """
    pandas = require("pandas", "pandas", "export_formats()")
    endings = {exporter.name: exporter.ending for exporter in EXPORTERS}
    rows = [["PyTorch", "-", ".pt", True]]
    rows += [[name, name, endings[name], name not in _NO_GPU] for name in (*FORMATS, *ELSEWHERE)]
    return pandas.DataFrame(rows, columns=["Format", "Argument", "Suffix", "GPU"])


def _export(name: str, model: Model, im: Tensor, file: str | Path, **options: Any) -> str:
    """Make one format.

    Args:
        model: what ``attempt_load`` returns.
        im: [B, 3, H, W], whose shape the file is made for.
        file: path of the checkpoint, whose stem the file gets.

    Returns:
        Path of the file.

    Raises:
        InputError: it cannot be made.
    """
    height, width = im.shape[2:]
    given = {"include": [name], "imgsz": [height, width], "batch_size": len(im), **options}
    job = Job(model.eval(), options_from(ExportOptions, given), (height, width), Path(file).with_suffix(""))
    row = export_all(job, Row(format="pytorch", path=Path(file)))[-1]
    if row.path is None:
        raise InputError(f"{name} was not made: {row.note}")
    return str(row.path)


def export_torchscript(model: Model, im: Tensor, file: str | Path, optimize: bool = False, prefix: str = "") -> str:
    """A ``.torchscript`` file; arguments and errors of all these functions: see :func:`_export`."""
    return _export("torchscript", model, im, file, optimize=optimize)


def export_onnx(
    model: Model,
    im: Tensor,
    file: str | Path,
    opset: int = 12,
    train: bool = False,
    dynamic: bool = False,
    simplify: bool = False,
    prefix: str = "",
) -> str:
    """An ``.onnx`` file; options as those of ``export.py``."""
    return _export("onnx", model, im, file, opset=opset, train=train, dynamic=dynamic, simplify=simplify)


def export_openvino(model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """An ``_openvino_model`` folder."""
    return _export("openvino", model, im, file)


def export_coreml(model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """An ``.mlpackage`` folder."""
    return _export("coreml", model, im, file)


def export_engine(
    model: Model,
    im: Tensor,
    file: str | Path,
    train: bool = False,
    half: bool = False,
    simplify: bool = False,
    workspace: int = 4,
    verbose: bool = False,
    prefix: str = "",
) -> str:
    """An ``.engine`` file of TensorRT; ``simplify`` has no effect, TensorRT reads the graph as it is."""
    return _export("engine", model, im, file, train=train, half=half, workspace=workspace, verbose=verbose)


def export_saved_model(
    model: Model,
    im: Tensor,
    file: str | Path,
    dynamic: bool = False,
    tf_nms: bool = False,
    agnostic_nms: bool = False,
    topk_per_class: int = 100,
    topk_all: int = 100,
    iou_thres: float = 0.45,
    conf_thres: float = 0.25,
    prefix: str = "",
) -> tuple[Model, str]:
    """As :func:`export_onnx`; the model is returned too, for the functions that take a Keras model in v6.1."""
    limits = {"topk_per_class": topk_per_class, "topk_all": topk_all, "iou_thres": iou_thres, "conf_thres": conf_thres}
    wanted = limits if tf_nms else {}
    return model, _export(
        "saved_model", model, im, file, dynamic=dynamic, nms=tf_nms, agnostic_nms=agnostic_nms, **wanted
    )


def export_pb(keras_model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """A ``.pb`` file."""
    return _export("pb", keras_model, im, file)


def export_tflite(
    keras_model: Model,
    im: Tensor,
    file: str | Path,
    int8: bool = False,
    data: str | Path | None = None,
    ncalib: int = 100,
    prefix: str = "",
) -> str:
    """A ``.tflite`` file; ``int8`` stores the weights so, without images: ``data`` and ``ncalib`` have no effect."""
    return _export("tflite", keras_model, im, file, int8=int8)


def export_edgetpu(keras_model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """Refused with the reason: see ``utils/export/unsupported.py``."""
    return _export("edgetpu", keras_model, im, file)


def export_tfjs(keras_model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """Refused with the reason and the way there."""
    return _export("tfjs", keras_model, im, file)
