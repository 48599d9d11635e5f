"""What is exported: a model and the options."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from models.dynamic import get_temperature
from models.dynamic_convolution import DynamicForm
from models.yolo import Model
from utils.config.export_options import ExportOptions
from utils.export.export_network import ExportNetwork, RawNetwork
from utils.inference.backends.metadata import Metadata

LARGEST_FREE_BATCH = 8


@dataclass(frozen=True)
class ExportJob:
    """A model and how it is exported.

    Attributes:
        model: in float32 and evaluation mode; exporters work on copies.
        hw: height and width of the input in pixels.
        stem: path of the files without ending.
        inputs: files that are read, which must not be overwritten.
    """

    model: Model
    options: ExportOptions
    hw: tuple[int, int]
    stem: Path
    inputs: tuple[Path, ...] = ()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def on_cpu(self) -> ExportJob:
        """The same in float32 on the CPU, for converters that take nothing else."""
        model = self.model if self.device.type == "cpu" else copy.deepcopy(self.model).cpu()
        return replace(self, model=model, options=replace(self.options, half=False))

    def network(self, form: DynamicForm, free: tuple[str, ...]) -> ExportNetwork | RawNetwork:
        """The model ready for export; ``free`` are the free axes."""
        if self.options.train:
            return RawNetwork(self.model, form)
        fixed = not {"height", "width"} & set(free)
        return ExportNetwork(self.model, form, self.hw if fixed else None, self.options.half)

    def most(self) -> tuple[int, int, int]:
        """Largest batch, height and width of free axes, for formats that need a limit.

        At least two strides, so that two sizes can be tried.
        """
        least = 2 * int(self.model.stride.max())
        return max(LARGEST_FREE_BATCH, self.options.batch_size), max(self.hw[0], least), max(self.hw[1], least)

    def images(self, batch: int | None = None) -> Tensor:
        """A batch of the size of the export to run the network on."""
        shape = (batch or self.options.batch_size, 3, *self.hw)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        return images.half() if self.options.half else images

    def about(self, free: tuple[str, ...], network: ExportNetwork | RawNetwork) -> Metadata:
        """The metadata of the file."""
        forms = sorted({form.value for form in network.forms.values()})
        return Metadata(
            names=tuple(self.model.names),
            stride=int(self.model.stride.max()),
            imgsz=self.hw,
            batch=self.options.batch_size,
            dynamic=free,
            half=self.options.half,
            nms=self.options.nms,
            nms_conf=self.options.conf_thres if self.options.nms else 0.0,
            nms_iou=self.options.iou_thres if self.options.nms else 1.0,
            raw_levels=self.options.train,
            temperature=get_temperature(self.model),
            form="/".join(forms),
        )
