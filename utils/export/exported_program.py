"""``torch.export``: the graph PyTorch itself loads again, without this program's source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from utils.export.base import Exporter
from utils.export.job import Job
from utils.inference.backends.exported_program import ABOUT


class ExportedProgramExporter(Exporter):
    """A ``.pt2`` file."""

    name = "pt2"
    ending = ".pt2"

    def write(self, job: Job, path: Path) -> list[str]:
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        program = captured(network, job, free)
        extra = {ABOUT: json.dumps(job.about(free, network).to_plain())}
        with path.open("wb") as stream:
            torch.export.save(program, stream, extra_files=extra)
        return []


def captured(network: nn.Module, job: Job, free: tuple[str, ...]) -> Any:
    """The network as an ``ExportedProgram``; height and width stay multiples of the stride."""
    stride = int(job.model.stride.max())
    axes = {
        index: Dim(axis, min=1) if axis == "batch" else stride * Dim(axis, min=1)
        for index, axis in ((0, "batch"), (2, "height"), (3, "width"))
        if axis in free
    }
    # A batch of one would be taken for a constant.
    images = job.images(max(2, job.options.batch_size) if "batch" in free else None)
    with torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=({**axes},))
