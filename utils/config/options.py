"""The options of all scripts: one frozen record and one module per script, with fields of ``utils.config.flags``.

The names and defaults are those of YOLOv5 v6.1 unless a test table says otherwise.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from utils.config.detect_options import DetectOptions
from utils.config.export_options import ExportOptions
from utils.config.train_options import TrainOptions
from utils.config.val_options import ValOptions

__all__ = ["DetectOptions", "ExportOptions", "Options", "TrainOptions", "ValOptions", "to_plain"]

Options = TrainOptions | ValOptions | DetectOptions | ExportOptions


def to_plain(options: Options) -> dict[str, Any]:
    """The options as plain values (tuples become lists), ready for a yaml or a checkpoint."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
