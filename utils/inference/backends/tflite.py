"""LiteRT, formerly TensorFlow Lite, for small devices (``.tflite``); with the Edge TPU (``_edgetpu.tflite``)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from utils.inference.backends.checked_tflite import check_tflite
from utils.inference.backends.metadata import METADATA_FILE, from_json
from utils.inference.backends.tensorflow import TensorFlowBackend
from utils.inference.venvs import LITERT

_LONGEST = 4 << 20  # bytes of the metadata


class TFLiteBackend(TensorFlowBackend):
    """One ``.tflite`` file. Its metadata is in a zip archive after the model, as usual for TFLite."""

    kind = "tflite"
    what = "a TFLite file"
    stack = LITERT

    @staticmethod
    def content_of(file: Path, trust: bool) -> bytes | None:
        content = file.read_bytes()
        if not trust:
            check_tflite(content)
        return content

    @staticmethod
    def read_metadata(file: Path) -> Mapping[str, str]:
        try:
            with zipfile.ZipFile(file) as archive:
                if archive.getinfo(METADATA_FILE).file_size > _LONGEST:
                    raise ValueError(f"its {METADATA_FILE} is longer than {_LONGEST >> 20} MiB")
                return from_json(archive.read(METADATA_FILE))
        except (zipfile.BadZipFile, KeyError):  # without an archive, or with one of another program
            return {}


class EdgeTPUBackend(TFLiteBackend):
    """A ``.tflite`` file compiled for the Edge TPU, run on one. It is code for that, so its content is not checked."""

    kind = "edgetpu"
    what = "a file for the Edge TPU"

    @staticmethod
    def content_of(file: Path, trust: bool) -> bytes | None:
        return file.read_bytes()
