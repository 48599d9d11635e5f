"""Search for the layer that cannot be exported: the first rows of the model are exported alone, more or fewer."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.dynamic_convolution import DynamicForm
from utils.export.base import Exporter
from utils.export.check import cases, sample_images
from utils.export.export_job import ExportJob
from utils.export.export_network import ExportNetwork, RawNetwork
from utils.inference.backends import open_exported

LOG = logging.getLogger(__name__)
_SECONDS = 120.0  # of processor time, after which the search stops
_MOST = 5  # times as many by the clock, for converters that run as separate processes


class FirstRows(nn.Module):
    """[B, 3, H, W] -> the output of the last of the first rows, as [B, places, channels]; it depends on all others."""

    def __init__(self, whole: ExportNetwork, rows: int) -> None:
        super().__init__()
        self.forms, self.sources, self.layers = whole.forms, whole.net.sources, whole.net.model[:rows]

    def forward(self, images: Tensor) -> Tensor:
        given = [images]  # then the output of each row
        for index, (layer, sources) in enumerate(zip(self.layers, self.sources)):
            inputs = [given[source + (1 if source >= 0 else index + 1)] for source in sources]
            given.append(layer(inputs if layer.takes_list else inputs[0]))
        # An output that nothing uses would be dropped from a graph, and with it the layer that cannot be exported.
        trace = torch.stack([one.mean() for one in given]).sum()
        return given[-1].flatten(2).transpose(1, 2) + 0 * trace


@dataclass(frozen=True)
class FirstRowsJob(ExportJob):
    """A job for the first rows of its model."""

    rows: int = 0

    def network(self, form: DynamicForm, free: tuple[str, ...]) -> ExportNetwork | RawNetwork:
        whole = super().network(form, free)
        assert isinstance(whole, ExportNetwork)
        return FirstRows(whole, self.rows)  # type: ignore[return-value]  # it has what exporters use


@dataclass(frozen=True)
class FaultyLayerSearch:
    """Attempts to export parts of a model.

    Args:
        run: the file of the whole model was made, and failed when it was run.
    """

    exporter: Exporter
    job: ExportJob
    run: bool

    def fails(self, rows: int, dynamic: bool = True) -> bool:
        """Whether the first rows cannot be exported, or their file not be run."""
        options = replace(self.job.options, train=False, nms=False, int8=False, simplify=False)
        if not dynamic:
            options = replace(options, dynamic=False, dynamic_axes=())
        part = FirstRowsJob(self.job.model, options, self.job.hw, self.job.stem, rows=rows)
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            path = Path(folder) / self.exporter.path(part).name
            try:
                self.exporter.write(part, path)
                if self.run:
                    self._run(path)
            except Exception:  # an exporter raises whatever its library does
                LOG.debug("%s of the first %d rows", self.exporter.name, rows, exc_info=True)
                return True
        return False

    def _run(self, path: Path) -> None:
        backend = open_exported(path, self.job.device)
        for batch, hw in cases(backend.info):
            images = sample_images(batch, hw).to(self.job.device)
            backend.run(images.half() if backend.fp16 else images)

    def index(self) -> int | None:
        """The layer up to which the model can be exported; None if it is none of them, or not found in time."""
        rows = len(self.job.model.model)
        end, latest = time.process_time() + _SECONDS, time.monotonic() + _MOST * _SECONDS
        if self.fails(0) or not self.fails(rows):
            return None
        good, bad = 0, rows
        while bad - good > 1:
            if time.process_time() > end or time.monotonic() > latest:
                return None
            middle = (good + bad) // 2
            good, bad = (good, middle) if self.fails(middle) else (middle, bad)
        return good


def faulty_layer(exporter: Exporter, job: ExportJob, run: bool) -> str:
    """The first layer that cannot be exported, with its row of the model yaml, and the way out; "" if none is found."""
    search = FaultyLayerSearch(exporter, job, run)
    index = search.index()
    if index is None:
        return ""
    row = [*job.model.yaml["backbone"], *job.model.yaml["head"]][index]
    text = f"layer {index} ({type(job.model.model[index]).__name__}, row {row!s:.120}) cannot be exported"
    if exporter.free(job.options) and not exporter.always_free and not search.fails(index + 1, dynamic=False):
        return f"{text} with --dynamic; drop that, or use another operation there"
    return f"{text}; use another operation there, or another format"
