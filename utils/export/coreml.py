"""Core ML, for Apple's systems: an ``.mlpackage``. It can be made anywhere and runs on macOS.

v6.1 wrote ``.mlmodel`` files; these hold the older kind of network, for which the converter takes traced graphs only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from models.dynamic_forms import DynamicForm
from utils.core.errors import InputError, first_line
from utils.core.rounding import Gap, most_telling
from utils.export.base import Exporter
from utils.export.check import Proof, Reference, cases, sample_images
from utils.export.exported_program import captured
from utils.export.job import Job
from utils.export.mil import MilGraph
from utils.inference.backends.coreml import INPUT, OUTPUT, runs_here
from utils.inference.backends.metadata import Metadata, from_text

MOST_IMAGES, MOST_PIXELS = 256, 4096  # of a free batch, of a free side: Core ML wants a limit


class CoreMLExporter(Exporter):
    """An ``.mlpackage``; with ``--half`` it computes in half precision, images and boxes stay float32."""

    name = "coreml"
    ending = ".mlpackage"
    packages: ClassVar[dict[str, str]] = {"coremltools": "coremltools"}
    forms = (DynamicForm.MERGED, DynamicForm.MATMUL, DynamicForm.PATCHES)
    for_one = None

    def write(self, job: Job, path: Path) -> list[str]:
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

    def check(self, job: Job, path: Path) -> tuple[nn.Module | None, Proof]:
        return super().check(job, path) if runs_here() else (None, unrun(job, path))


def described(spec: Any, job: Job) -> Any:
    """The description with the size of the export as the usual one, and limits that Core ML accepts for free axes."""
    taken = spec.description.input[0].type.multiArrayType
    taken.shape[:] = [job.options.batch_size, 3, *job.hw]
    for most, axis in zip((MOST_IMAGES, 3, MOST_PIXELS, MOST_PIXELS), taken.shapeRange.sizeRanges):
        axis.upperBound = min(axis.upperBound, most)
    return spec


def unrun(job: Job, path: Path) -> Proof:
    """What can be said of a package where nothing runs it: whether its graph computes what PyTorch computes.

    Raises:
        InputError: it does not, or the package does not declare the input and output that the backend asks for.
    """
    told = "Core ML runs on macOS only, so it was not run"
    spec = read_spec(path)
    info = from_text(dict(spec.description.metadata.userDefined), path)
    check_ports(spec, job)
    try:
        graph = MilGraph(path)
        found = graph_gap(graph, info, job)
    except NotImplementedError as error:
        return Proof(None, None, f"{told}, nor its graph compared ({first_line(error)})")
    if found.fault:
        raise InputError(f"its graph differs from PyTorch {found.fault}: not kept")
    return Proof(None, None, f"{told}; its graph, computed by PyTorch, differs by {found.worst:.1e}")


def read_spec(path: Path) -> Any:
    """The description in a package."""
    from coremltools.models import MLModel

    return MLModel(str(path), skip_model_load=True).get_spec()


def check_ports(spec: Any, job: Job) -> None:
    """Raise InputError: the package does not take images and give boxes under the names of the backend."""
    taken, given = spec.description.input, spec.description.output
    names = ([port.name for port in taken], [port.name for port in given])
    if names != ([INPUT], [OUTPUT]):
        raise InputError(f"it takes {', '.join(names[0])} and gives {', '.join(names[1])}: not kept")
    shape = [int(side) for side in taken[0].type.multiArrayType.shape]
    if shape[1] != 3 or len(shape) != 4:
        raise InputError(f"it takes {shape}: not kept")


def graph_gap(graph: nn.Module, info: Metadata, job: Job) -> Gap:
    """How far the package's graph is from PyTorch, over the batches and sizes it takes."""
    half = job.options.half
    on_cpu = job.on_cpu()
    reference = Reference(replace(on_cpu, options=replace(on_cpu.options, half=half)))
    return most_telling([reference.gap(graph, sample_images(batch, hw)) for batch, hw in cases(info)])
