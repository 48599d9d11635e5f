"""``torch.export``: the graph PyTorch itself loads again, without this program's source."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.inference.backends.metadata import METADATA_FILE


class ExportedProgramExporter(Exporter):
    """A ``.pt2`` file."""

    name = "pt2"
    ending = ".pt2"

    def obstacle(self, job: ExportJob) -> str | None:
        layout = "torch.export.pt2_archive.constants"  # each tensor in its own record, as the backend reads it
        try:
            known = hasattr(importlib.import_module(layout), "WEIGHTS_CONFIG_FILENAME_FORMAT")
        except ImportError:
            known = False
        return None if known else f"it takes torch 2.9 or newer, this is {torch.__version__}"

    def write(self, job: ExportJob, path: Path) -> list[str]:
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        program = captured(network, job, free)
        extra = {METADATA_FILE: job.about(free, network).to_json()}
        with contextlib.suppress(ValueError):  # older releases of torch insist on it
            program.example_inputs = None  # a batch of images, which would make most of a small file
        with path.open("wb") as stream:
            torch.export.save(program, stream, extra_files=extra)
        return []


def captured(network: nn.Module, job: ExportJob, free: tuple[str, ...], bounded: bool = False) -> Any:
    """The network as an ``ExportedProgram``; height and width stay multiples of the stride.

    Args:
        bounded: free axes go no further than ``job.most()``.
    """
    stride = int(job.model.stride.max())
    ends = job.most() if bounded else (None, None, None)
    axes = {}
    for index, axis, unit, end in zip((0, 2, 3), ("batch", "height", "width"), (1, stride, stride), ends):
        if axis in free:
            steps = Dim(axis, min=1, max=None if end is None else end // unit)
            axes[index] = steps if axis == "batch" else unit * steps
    # A batch of one would be taken for a constant.
    images = job.images(max(2, job.options.batch_size) if "batch" in free else None)
    with torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=({**axes},))
