"""LiteRT, once TensorFlow Lite, for phones and small boards (``.tflite``); with the Edge TPU (``_edgetpu.tflite``)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from utils.inference.backends.metadata import from_json
from utils.inference.backends.tensorflow import ABOUT, TensorFlowBackend
from utils.inference.venvs import LITERT

_LONGEST = 4 << 20  # bytes of what a file says about itself


class TFLiteBackend(TensorFlowBackend):
    """One ``.tflite`` file. What it says about itself lies in a zip archive after the model, as TFLite has it."""

    kind = "tflite"
    what = "a TFLite file"
    stack = LITERT

    @staticmethod
    def said_in(file: Path) -> Mapping[str, str]:
        try:
            with zipfile.ZipFile(file) as archive:
                if archive.getinfo(ABOUT).file_size > _LONGEST:
                    raise ValueError(f"its {ABOUT} is longer than {_LONGEST >> 20} MiB")
                return from_json(archive.read(ABOUT))
        except (zipfile.BadZipFile, KeyError):  # without an archive, or with one of somebody else
            return {}


class EdgeTPUBackend(TFLiteBackend):
    """A ``.tflite`` file compiled for the Edge TPU, run on one."""

    kind = "edgetpu"
    what = "a file for the Edge TPU"
