"""TensorRT, for NVIDIA GPUs: an engine that fits the GPU it is made on.

Written for TensorRT 10 and 11, which have dropped weakly typed networks: types are those of the graph, so ``--half``
goes into that. Tested with a stand-in for the package; it has never run on a GPU.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from models.dynamic_convolution import DynamicForm
from utils.core.errors import InputError
from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.export.onnx import ONNX_INPUT, to_onnx
from utils.inference.backends.engine import add_metadata, create_logger, current_gpu

_OPSET = 17  # the last of the older exporter that TensorRT 10 knows as well
_GIGABYTE = 1 << 30


class EngineExporter(Exporter):
    """An ``.engine`` file. Constant kernels come first: TensorRT has the most ways to compute these."""

    name = "engine"
    ending = ".engine"
    packages: ClassVar[dict[str, str]] = {"tensorrt": "tensorrt", "onnx": "onnx"}
    forms: ClassVar[tuple[DynamicForm, ...]] = (DynamicForm.MERGED, DynamicForm.MATMUL, DynamicForm.PATCHES)
    for_one = None

    def obstacle(self, job: ExportJob) -> str | None:
        if job.device.type != "cuda":
            if torch.cuda.is_available():
                return "TensorRT tries its kernels out on the GPU: give --device 0"
            return "there is no CUDA device here; an engine fits the GPU it is made on, so run this there (--device 0)"
        return super().obstacle(job)

    def write(self, job: ExportJob, path: Path) -> list[str]:
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        through = path.with_name("through.onnx")
        graph = to_onnx(network, replace(job, options=replace(job.options, opset=_OPSET)), free, through)
        with current_gpu(job.device):
            plan = built(graph.SerializeToString(), job, free)
        path.write_bytes(add_metadata(job.about(free, network), plan))
        return ["half precision"] if job.options.half else []


def built(graph: bytes, job: ExportJob, free: tuple[str, ...]) -> bytes:
    """The engine of an ONNX graph.

    Raises:
        InputError: TensorRT cannot read the graph or finds no way to compute it; its own words.
    """
    import tensorrt

    errors: list[str] = []
    log = create_logger(tensorrt, errors, logging.INFO if job.options.verbose else logging.DEBUG)
    builder = tensorrt.Builder(log)
    # From release 11 on all networks are; the flag is still known there.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(graph):
        reason = parser.get_error(0).desc() if parser.num_errors else "without a reason"
        raise InputError(f"TensorRT cannot read the graph: {reason}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, job.options.workspace * _GIGABYTE)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # 10 bits of the values, so 1e-3 off
    if free:
        config.add_optimization_profile(optimization_profile(builder, job, free))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(f"TensorRT finds no way to compute it: {errors[0] if errors else 'see --verbose'}")
    return bytes(plan)


def optimization_profile(builder: Any, job: ExportJob, free: tuple[str, ...]) -> Any:
    """The least, the usual and the largest input of a network with free axes."""
    stride = int(job.model.stride.max())
    usual = (job.options.batch_size, *job.hw)
    sizes = [
        [size if axis in free else own for axis, size, own in zip(("batch", "height", "width"), ends, usual)]
        for ends in ((1, stride, stride), usual, job.most())
    ]
    made = builder.create_optimization_profile()
    made.set_shape(ONNX_INPUT, *((batch, 3, height, width) for batch, height, width in sizes))
    return made
