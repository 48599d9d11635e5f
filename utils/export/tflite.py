"""LiteRT, once TensorFlow Lite, for phones and small boards."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.dynamic_convolution import DynamicForm
from utils.config.export_options import ExportOptions
from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.inference.backends.base import FileBackend, NeedsTrustError
from utils.inference.backends.metadata import METADATA_FILE
from utils.inference.backends.tensorflow import TensorFlowBackend
from utils.inference.backends.tflite import TFLiteBackend
from utils.inference.venvs import LITERT_TORCH, Stack, run_program

CONVERTER = Path(__file__).with_name("tensorflow_worker.py")


class Shares(nn.Module):
    """A network whose boxes are shares of the image, as the TensorFlow family of v6.1 gives them.

    Args:
        hw: height and width of the images in pixels.
        rows: take images as [B, H, W, 3].
    """

    scale: Tensor

    def __init__(self, network: nn.Module, hw: tuple[int, int], no: int, rows: bool) -> None:
        super().__init__()
        self.network, self.rows = network, rows
        scale = torch.ones(no)
        scale[:4] = 1 / torch.tensor([hw[1], hw[0], hw[1], hw[0]], dtype=torch.float32)
        self.register_buffer("scale", scale)

    def forward(self, images: Tensor) -> Tensor:
        boxes: Tensor = self.network(images.permute(0, 3, 1, 2) if self.rows else images)
        return boxes * self.scale


class TensorFlowExporter(Exporter):
    """What the formats of the TensorFlow family have in common: fixed sizes, and an environment of their own."""

    can_free: ClassVar[tuple[str, ...]] = ()
    stack: ClassVar[Stack]
    backend: ClassVar[type[TensorFlowBackend]]

    def obstacle(self, job: ExportJob) -> str | None:
        return super().obstacle(job) or self.stack.missing(job.options.venvs)

    def opened(self, job: ExportJob, path: Path) -> tuple[FileBackend, str]:
        try:
            return self.backend(path, job.device, venvs=job.options.venvs), ""
        except NeedsTrustError:
            return self.backend(path, job.device, venvs=job.options.venvs, trust=True), "its users need --trust"

    def convert(self, job: ExportJob, **work: Any) -> None:
        """Let the converter do its work in its own environment."""
        python = self.stack.require(self.name, job.options.venvs)
        run_program(python, CONVERTER, [json.dumps({"to": self.name, **work})])


def fixed(options: ExportOptions) -> list[str]:
    """A note where free axes were requested."""
    return ["batch and size are fixed: the format has no free axes here"] if options.free_axes else []


def in_float32(job: ExportJob) -> ExportJob:
    """The same work with a network and images in float32."""
    return replace(job, options=replace(job.options, half=False))


class TFLiteExporter(TensorFlowExporter):
    """One ``.tflite`` file; ``--half`` and ``--int8`` store the weights in fewer bits, images and boxes stay float32.

    Files in which activations have a fixed 8-bit scale as well are not made: with the official yolov5n, objectness was
    off by 0.37 on average where there are objects, against 0.02 with the weights alone.
    """

    name = "tflite"
    ending = ".tflite"
    forms = (DynamicForm.MERGED, DynamicForm.MATMUL, DynamicForm.PATCHES)
    for_one = None  # computed kernels take a slow way
    stack = LITERT_TORCH
    backend = TFLiteBackend

    def write(self, job: ExportJob, path: Path) -> list[str]:
        options = job.options
        weights = "float16" if options.half else "int8" if options.int8 else "float32"
        exact = in_float32(job)
        network = exact.network(self.form(options), ())
        rows = exact.images().permute(0, 2, 3, 1).contiguous()
        through = path.with_name("through.pt2")
        with torch.no_grad():
            program = torch.export.export(Shares(network, job.hw, job.model.head.no, rows=True), (rows,))
        torch.export.save(program, through)
        self.convert(job, source=str(through), target=str(path), weights=weights)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA_FILE, exact.about((), network).to_json())
        return [*fixed(options), *([] if weights == "float32" else [f"weights in {weights}"])]
