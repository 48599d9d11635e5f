"""Formats that v6.1 names and this program does not make: why, and what leads there."""

from __future__ import annotations

from typing import ClassVar

from utils.export.base import Exporter
from utils.export.job import Job

REASONS = {
    "edgetpu": "the Edge TPU takes files that are 8-bit throughout, in which this detector loses its objects; its "
    "compiler is on no package index (a file compiled elsewhere runs: detect.py --weights NAME_edgetpu.tflite)",
    "tfjs": "not made by this program, which could not run it beside PyTorch; tensorflowjs_converter --input_format "
    "tf_saved_model NAME_saved_model NAME_web_model makes it of a SavedModel (--include saved_model)",
}


class Elsewhere(Exporter):
    """A format that is only named."""

    name: str  # type: ignore[misc]
    ending: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def obstacle(self, job: Job) -> str | None:
        return REASONS[self.name]
