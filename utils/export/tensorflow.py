"""TensorFlow's own formats: SavedModel for its second generation, a frozen graph for its first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from models.dynamic_convolution import DynamicForm
from utils.export.export_job import ExportJob
from utils.export.onnx import to_onnx
from utils.export.tflite import Shares, TensorFlowExporter, fixed
from utils.inference.backends.metadata import METADATA_FILE, Metadata
from utils.inference.backends.tensorflow import FrozenGraphBackend, SavedModelBackend, TensorFlowBackend
from utils.inference.venvs import ONNX2TF

_OPSET = 17


class SavedModelExporter(TensorFlowExporter):
    """A folder ``<name>_saved_model``."""

    name = "saved_model"
    ending = "_saved_model"
    packages: ClassVar[dict[str, str]] = {"onnx": "onnx"}
    forms = (DynamicForm.MERGED,)  # the only one of which no kernel is computed
    fixed_forms = ()
    for_one = None
    stack = ONNX2TF
    backend: ClassVar[type[TensorFlowBackend]] = SavedModelBackend

    def obstacle(self, job: ExportJob) -> str | None:
        if job.options.half:
            return "holds float32; drop --half"
        return super().obstacle(job)

    def write(self, job: ExportJob, path: Path) -> list[str]:
        about, through = self.through_onnx(job, path)
        self.convert(job, source=str(through), target=str(path))
        (path / METADATA_FILE).write_text(about.to_json(), encoding="utf-8")
        return fixed(job.options)

    def through_onnx(self, job: ExportJob, path: Path) -> tuple[Metadata, Path]:
        """The metadata of the file, and the intermediate ONNX file."""
        job = replace(job, options=replace(job.options, opset=_OPSET))
        network = job.network(self.form(job.options), ())
        through = path.with_name("through.onnx")
        to_onnx(Shares(network, job.hw, job.model.head.no, rows=False), job, (), through)
        return job.about((), network), through


class FrozenGraphExporter(SavedModelExporter):
    """One ``.pb`` file."""

    name = "pb"
    ending = ".pb"
    backend = FrozenGraphBackend

    def write(self, job: ExportJob, path: Path) -> list[str]:
        about, through = self.through_onnx(job, path)
        self.convert(job, source=str(through), target=str(path), about=about.to_json())
        return fixed(job.options)
