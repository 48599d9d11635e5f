"""ExecuTorch, for phones and small devices: a program for a runtime of a few hundred kilobytes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from utils.export.base import Exporter
from utils.export.exported_program import captured
from utils.export.job import Job
from utils.inference.backends.executorch import ABOUT

_XNNPACK = "XnnpackBackend"


class ExecuTorchExporter(Exporter):
    """A ``.pte`` file, with the convolutions by XNNPACK where the installed package has it.

    The memory of a program is laid out in advance, so free axes go up to ``job.most()``.
    """

    name = "executorch"
    ending = ".pte"
    packages: ClassVar[dict[str, str]] = {"executorch": "executorch"}
    for_one = None  # XNNPACK leaves a computed kernel to the portable operators, which take a hundred times as long

    def write(self, job: Job, path: Path) -> list[str]:
        from executorch.exir import to_edge_transform_and_lower

        job = replace(job, model=copy.deepcopy(job.model).cpu())
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        program = captured(network, job, free, bounded=True)
        about = job.about(free, network).to_json()
        by_xnnpack = partitioners()
        lowered = to_edge_transform_and_lower(program, partitioner=by_xnnpack, constant_methods={ABOUT: about})
        with path.open("wb") as stream:
            lowered.to_executorch().write_to_file(stream)
        return [] if by_xnnpack else ["without XNNPACK, so slow"]


def partitioners() -> list[Any] | None:
    """What hands parts of the network to XNNPACK; None where the package comes without."""
    from executorch.runtime import Runtime

    if not Runtime.get().backend_registry.is_available(_XNNPACK):
        return None
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return [XnnpackPartitioner()]
