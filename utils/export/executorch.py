"""ExecuTorch, for phones and small devices: a program for a runtime of a few hundred kilobytes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.export.exported_program import captured
from utils.inference.backends.executorch import ABOUT

_XNNPACK = "XnnpackBackend"


class ExecuTorchExporter(Exporter):
    """A ``.pte`` file, with the convolutions by XNNPACK where the installed package has it.

    The memory of a program is laid out in advance, so free axes go up to ``job.most()``.
    """

    name = "executorch"
    ending = ".pte"
    packages: ClassVar[dict[str, str]] = {"executorch": "executorch"}
    content_is_checked = True
    for_one = None  # XNNPACK leaves a computed kernel to the portable operators, which take a hundred times as long

    def write(self, job: ExportJob, path: Path) -> list[str]:
        from executorch.exir import to_edge_transform_and_lower

        job = replace(job, model=copy.deepcopy(job.model).cpu())
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        program = captured(network, job, free, bounded=True)
        about = job.about(free, network).to_json()
        by_xnnpack, half = partitioners(), job.options.half
        with weights_as_they_are() if by_xnnpack and half else contextlib.nullcontext([1]) as kept:
            lowered = to_edge_transform_and_lower(program, partitioner=by_xnnpack, constant_methods={ABOUT: about})
        with path.open("wb") as stream:
            lowered.to_executorch().write_to_file(stream)
        notes = {
            "without XNNPACK, so slow": not by_xnnpack,
            "half precision": half and bool(kept),
            "half precision, but weights in float32 by this release of executorch": half and not kept,
        }
        return [note for note, holds in notes.items() if holds]


@contextlib.contextmanager
def weights_as_they_are() -> Iterator[list[int]]:
    """XNNPACK's part is written with the kernels in the precision of the network while this is open.

    Without it, the kernels of a network in half precision are written as float32, in twice the bytes; the runtime takes
    both and computes the same. What is given has an entry for each tensor that this was about.
    """
    from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor

    before, kept = NodeVisitor.define_tensor, []

    def define(self: Any, *given: Any, force_fp32: bool = False, **named: Any) -> Any:
        if force_fp32 and named.get("quant_params") is None:
            kept.append(1)
            force_fp32 = False
        return before(self, *given, force_fp32=force_fp32, **named)

    NodeVisitor.define_tensor = define
    try:
        yield kept
    finally:
        NodeVisitor.define_tensor = before


def partitioners() -> list[Any] | None:
    """What hands parts of the network to XNNPACK; None where the package comes without."""
    from executorch.runtime import Runtime

    if not Runtime.get().backend_registry.is_available(_XNNPACK):
        return None
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return [XnnpackPartitioner()]
