"""ONNX, the format most runtimes read."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from utils.core.errors import InputError, first_line
from utils.export.base import Exporter, missing
from utils.export.check import Reference
from utils.export.export_job import ExportJob
from utils.export.exported_program import captured
from utils.export.onnx_nms import RAW_OUTPUT, run_onnx, with_nms
from utils.export.quantize import LEAST_OPSET, MOST_OPSET, quantized

NEW_EXPORTER = 18  # the least opset of the exporter on torch.export; below it there is only the older one
ONNX_INPUT = "images"


class OnnxExporter(Exporter):
    """One ``.onnx`` file, weights included."""

    name = "onnx"
    ending = ".onnx"
    packages: ClassVar[dict[str, str]] = {"onnx": "onnx", "onnxruntime": "onnxruntime"}

    def obstacle(self, job: ExportJob) -> str | None:
        extra = {"onnxscript": job.options.opset >= NEW_EXPORTER, "onnxslim": job.options.simplify}
        return missing({**self.packages, **{name: name for name, wanted in extra.items() if wanted}})

    def write(self, job: ExportJob, path: Path) -> list[str]:
        import onnx

        options, free, notes = job.options, self.free(job.options), []
        network = job.network(self.form(options), free)
        model = to_onnx(network, job, free, path)
        if options.int8:
            model = quantized(model, job, path.parent)
            notes.append("8-bit convolutions")
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        notes.append(f"opset {opset}" + (f" (--opset {options.opset} is not possible)" * (opset != options.opset)))
        if options.simplify:
            model, note = simplified(model, job, free)
            notes.append(note)
        if options.nms:
            model = with_nms(model, job.model.nc, options)
        for key, value in job.about(free, network).to_text().items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
        return notes


def to_onnx(network: nn.Module, job: ExportJob, free: tuple[str, ...], path: Path) -> Any:
    """The network as an ``onnx.ModelProto`` with named free axes."""
    import onnx

    opset, target = job.options.opset, str(path)
    if job.options.int8:
        opset = min(max(opset, LEAST_OPSET), MOST_OPSET)
    names = [RAW_OUTPUT] if not job.options.train else [f"{RAW_OUTPUT}{level}" for level in range(job.model.head.nl)]
    settings: dict[str, Any] = {"opset_version": opset, "input_names": [ONNX_INPUT], "output_names": names}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecation of the older exporter; traced sizes are checked on the file
        if opset >= NEW_EXPORTER:
            program = captured(network, job, free)
            torch.onnx.export(program, (job.images(),), target, dynamo=True, external_data=False, **settings)
        else:
            axes = {index: axis for index, axis in ((0, "batch"), (2, "height"), (3, "width")) if axis in free}
            named = (
                {ONNX_INPUT: axes} | {name: _free_output(free, job.options.train) for name in names} if axes else None
            )
            try:
                torch.onnx.export(
                    network,
                    (job.images(),),
                    target,
                    dynamo=False,
                    do_constant_folding=not job.options.train,
                    dynamic_axes=named,
                    **settings,
                )
            except torch.onnx.errors.UnsupportedOperatorError as error:
                raise _newer_opset(error, opset) or error from error
    model = onnx.load(target)
    for index, axis in ((0, "batch"), (2, "height"), (3, "width")):
        if axis in free:
            model.graph.input[0].type.tensor_type.shape.dim[index].dim_param = axis
    return model


def _newer_opset(error: Exception, opset: int) -> InputError | None:
    """The error for an operation that a later opset has; None if none has it."""
    match = re.search(r"operator 'aten::(\w+)'.* added in version (\d+)", str(error))
    if match is None:
        return None
    return InputError(f"opset {opset} has no operation {match[1]}: pass --opset {match[2]}")


def _free_output(free: tuple[str, ...], raw: bool) -> dict[int, str]:
    axes = {0: "batch"} if "batch" in free else {}
    if {"height", "width"} & set(free):
        axes |= {2: "rows", 3: "columns"} if raw else {1: "boxes"}
    return axes


def simplified(model: Any, job: ExportJob, free: tuple[str, ...]) -> tuple[Any, str]:
    """The graph with constants folded and duplicates removed, and a note; the old graph if that fails."""
    import onnxslim

    try:
        slim = onnxslim.slim(model)
        for images in (job.images(), job.images(job.options.batch_size + 2 * ("batch" in free))):
            _check(slim, job, images.float())
    except Exception as error:  # of any kind: there is a file without it
        return model, f"simplification failed ({first_line(error)}), so the graph is as exported"
    return slim, f"simplified, {len(model.graph.node)} to {len(slim.graph.node)} nodes"


def _check(graph: Any, job: ExportJob, images: Tensor) -> None:
    """Raise ValueError: a graph computes something else than the model."""

    def run(images: Tensor) -> Any:
        given = [torch.from_numpy(each) for each in run_onnx(graph, images.half() if job.options.half else images)]
        return given if job.options.train else (given[0], None)

    if fault := Reference(job).gap(run, images).fault:
        raise ValueError(f"the simplified graph differs {fault}")
