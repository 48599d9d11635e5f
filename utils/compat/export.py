"""Functions of ``export.py`` of YOLOv5 v6.1, one per format. Each file is compared with PyTorch before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from models.yolo import Model
from utils.config.export_options import EXPORT_FORMATS, UNAVAILABLE_FORMATS, ExportOptions
from utils.config.keywords import options_from
from utils.core.errors import InputError
from utils.core.packages import import_optional
from utils.export.export_job import ExportJob
from utils.export.formats import EXPORTERS, export_all
from utils.export.results import ExportResult

_NO_GPU = ("coreml", "tflite", "edgetpu", "ncnn", "executorch")


def export_formats() -> Any:
    """Return a pandas.DataFrame with a row per format: name, argument of ``--include``, file suffix, use on a GPU.

    Raises:
        InputError: pandas is not installed.
    """
    pandas = import_optional("pandas", "pandas", "export_formats()")
    endings = {exporter.name: exporter.ending for exporter in EXPORTERS}
    rows = [["PyTorch", "-", ".pt", True]]
    rows += [[name, name, endings[name], name not in _NO_GPU] for name in (*EXPORT_FORMATS, *UNAVAILABLE_FORMATS)]
    return pandas.DataFrame(rows, columns=["Format", "Argument", "Suffix", "GPU"])


def _export(name: str, model: Model, im: Tensor, file: str | Path, **options: Any) -> str:
    """Export to one format.

    Args:
        model: result of ``attempt_load``.
        im: [B, 3, H, W], the input shape of the file.
        file: path of the checkpoint; the file is written beside it, with the same stem.

    Returns:
        Path of the file.

    Raises:
        InputError: the export fails.
    """
    height, width = im.shape[2:]
    given = {"include": [name], "imgsz": [height, width], "batch_size": len(im), **options}
    job = ExportJob(model.eval(), options_from(ExportOptions, given), (height, width), Path(file).with_suffix(""))
    row = export_all(job, ExportResult(format="pytorch", path=Path(file)))[-1]
    if row.path is None:
        raise InputError(f"{name} was not made: {row.note}")
    return str(row.path)


def export_torchscript(model: Model, im: Tensor, file: str | Path, optimize: bool = False, prefix: str = "") -> str:
    """Write a ``.torchscript`` file; arguments and errors of all these functions: see :func:`_export`."""
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
    """Write an ``.onnx`` file; the options are those of ``export.py``."""
    return _export("onnx", model, im, file, opset=opset, train=train, dynamic=dynamic, simplify=simplify)


def export_openvino(model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """Write an ``_openvino_model`` folder."""
    return _export("openvino", model, im, file)


def export_coreml(model: Model, im: Tensor, file: str | Path, prefix: str = "") -> str:
    """Write an ``.mlpackage`` folder."""
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
    """Write an ``.engine`` file of TensorRT; ``simplify`` has no effect."""
    return _export("engine", model, im, file, train=train, half=half, workspace=workspace, verbose=verbose)
