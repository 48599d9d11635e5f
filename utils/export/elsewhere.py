"""Formats that v6.1 names and this program does not make: why, and what leads there."""

from __future__ import annotations

from typing import ClassVar

from utils.export.base import Exporter
from utils.export.job import Job

REASONS = {
    "engine": "TensorRT files fit one GPU and are made there, of an ONNX file (--include onnx --dynamic-form M): "
    "trtexec --onnx=FILE.onnx --memPoolSize=workspace:{mib}M{half}",
    "saved_model": "not made by this program; onnx2tf converts an ONNX file (--include onnx --dynamic-form M)",
    "pb": "not made by this program; onnx2tf converts an ONNX file (--include onnx --dynamic-form M)",
    "tflite": "not made by this program; litert-torch converts a .pt2 file (--include pt2)",
    "edgetpu": "the compiler is on no package index; it takes an 8-bit tflite file",
    "tfjs": "not made by this program; tensorflowjs converts a saved_model",
    "executorch": "not made by this program; executorch converts a .pt2 file (--include pt2)",
}


class Elsewhere(Exporter):
    """A format that is only named."""

    name: str  # type: ignore[misc]
    ending: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def obstacle(self, job: Job) -> str | None:
        half = " --fp16" if job.options.half else ""
        return REASONS[self.name].format(mib=1024 * job.options.workspace, half=half)
