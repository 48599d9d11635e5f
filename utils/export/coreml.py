"""Core ML, for Apple's systems: an ``.mlpackage``. It can be made on any system; only macOS runs it and compares it.

v6.1 wrote ``.mlmodel`` files; these hold the older kind of network, for which the converter takes traced graphs only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from models.dynamic_convolution import DynamicForm
from utils.export.base import Exporter
from utils.export.check import Proof
from utils.export.export_job import ExportJob
from utils.export.exported_program import captured
from utils.inference.backends.base import UnknownPartError
from utils.inference.backends.checked_coreml import checked_copy
from utils.inference.backends.coreml import OUTPUT, runs_here

LARGEST_BATCH, LARGEST_SIDE = 256, 4096  # images, pixels: Core ML needs a limit of a free axis
NOT_COMPARED = "not compared with PyTorch: Core ML runs on macOS only"


class CoreMLExporter(Exporter):
    """An ``.mlpackage``; with ``--half`` it computes in half precision, images and boxes stay float32."""

    name = "coreml"
    ending = ".mlpackage"
    packages: ClassVar[dict[str, str]] = {"coremltools": "coremltools"}
    forms = (DynamicForm.MERGED, DynamicForm.MATMUL, DynamicForm.PATCHES)
    for_one = None
    content_is_checked = True

    def write(self, job: ExportJob, path: Path) -> list[str]:
        import coremltools

        half = job.options.half
        job = job.on_cpu()  # images stay float32
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        model = coremltools.convert(
            captured(network, job, free).run_decompositions({}),
            outputs=[coremltools.TensorType(name=OUTPUT)],
            convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
        spec = described(model.get_spec(), job)
        spec.description.metadata.userDefined.update(job.about(free, network).to_text())
        coremltools.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(str(path))
        return ["half precision"] if half else []

    def check(self, job: ExportJob, path: Path) -> tuple[nn.Module | None, Proof]:
        if runs_here():
            return super().check(job, path)
        return None, Proof(None, None, f"{NOT_COMPARED}{self._needs_trust(path)}")

    @staticmethod
    def _needs_trust(path: Path) -> str:
        from coremltools.proto.Model_pb2 import Model

        with tempfile.TemporaryDirectory() as folder:
            try:
                checked_copy(path, Path(folder), Model)
            except UnknownPartError as error:
                return f"; its users need --trust ({error})"
        return ""


def described(spec: Any, job: ExportJob) -> Any:
    """Set the size of the export as the default one, and limits that Core ML accepts for free axes."""
    taken = spec.description.input[0].type.multiArrayType
    taken.shape[:] = [job.options.batch_size, 3, *job.hw]
    for most, axis in zip((LARGEST_BATCH, 3, LARGEST_SIDE, LARGEST_SIDE), taken.shapeRange.sizeRanges):
        axis.upperBound = min(axis.upperBound, most)
    return spec
