"""TorchScript, for programs in C++ and on phones."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.inference.backends.torchscript import CONFIG


class TorchScriptExporter(Exporter):
    """A traced graph; any batch and size, whatever the options."""

    name = "torchscript"
    ending = ".torchscript"
    always_free = True
    content_is_checked = True

    def write(self, job: ExportJob, path: Path) -> list[str]:
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the deprecation is said below; traced sizes are checked on the file
            traced = torch.jit.trace(network, job.images(), check_trace=False)
            if job.options.optimize:
                from torch.utils.mobile_optimizer import optimize_for_mobile

                traced = optimize_for_mobile(traced)
            extra = {CONFIG: job.about(free, network).to_json()}
            with path.open("wb") as stream:
                torch.jit.save(traced, stream, _extra_files=extra)
        notes = ["deprecated by PyTorch, which has pt2 in its place"]
        return [*notes, "optimized for phones"] if job.options.optimize else notes
