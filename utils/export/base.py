"""What every format has in common: the work to be done, where files go, and what a format has to say about itself."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from models.dynamic import get_temperature
from models.dynamic_forms import DynamicForm
from models.yolo import Model
from utils.config.export_options import ExportOptions
from utils.errors import InputError
from utils.export.network import ExportNetwork, MapNetwork
from utils.inference.backends.metadata import Metadata

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A model and what is to be made of it.

    Attributes:
        model: in float32 and evaluation mode; exporters work on copies.
        hw: height and width of the input in pixels.
        stem: path of the files without ending.
    """

    model: Model
    options: ExportOptions
    hw: tuple[int, int]
    stem: Path

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def network(self, form: DynamicForm, free: tuple[str, ...]) -> ExportNetwork | MapNetwork:
        """The model ready for export; ``free`` are the free axes."""
        if self.options.train:
            return MapNetwork(self.model, form)
        fixed = not {"height", "width"} & set(free)
        return ExportNetwork(self.model, form, self.hw if fixed else None, self.options.half)

    def images(self, batch: int | None = None) -> Tensor:
        """A batch of the size of the export to run the network on."""
        shape = (batch or self.options.batch_size, 3, *self.hw)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        return images.half() if self.options.half else images

    def about(self, free: tuple[str, ...], network: ExportNetwork | MapNetwork) -> Metadata:
        """What the file will say about itself."""
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
            maps=self.options.train,
            temperature=get_temperature(self.model),
            form="/".join(forms),
        )


class Exporter:
    """One format.

    Attributes:
        name: what ``--include`` calls it.
        ending: of its files.
        packages: module to import -> what pip calls it, for all that making and running a file needs.
        forms: how dynamic layers can be computed in this format, the best first.
        can_free: the axes that can be free; with ``always_free`` they are, whatever the options.
    """

    name: ClassVar[str]
    ending: ClassVar[str]
    packages: ClassVar[dict[str, str]] = {}
    forms: ClassVar[tuple[DynamicForm, ...]] = (DynamicForm.MATMUL, DynamicForm.PATCHES, DynamicForm.MERGED)
    can_free: ClassVar[tuple[str, ...]] = ("batch", "height", "width")
    always_free: ClassVar[bool] = False

    def obstacle(self, job: Job) -> str | None:
        """Why the file cannot be made here, known before any work is done; None if it can."""
        return missing(self.packages)

    def form(self, options: ExportOptions) -> DynamicForm:
        """How dynamic layers are computed: as the user says, else as suits the format.

        Raises:
            InputError: the form asked for does not run in this format.
        """
        if options.dynamic_form == "auto":
            return DynamicForm.MERGED if options.int8 and DynamicForm.MERGED in self.forms else self.forms[0]
        wanted = DynamicForm(options.dynamic_form)
        fixed_batch = "batch" not in self.free(options)
        allowed = self.forms + ((DynamicForm.GROUPED, DynamicForm.SINGLE) if fixed_batch else ())
        if wanted not in allowed:
            known = ", ".join(form.value for form in allowed)
            raise InputError(f"--dynamic-form {wanted.value} does not run as {self.name}; possible are {known}")
        return wanted

    def free(self, options: ExportOptions) -> tuple[str, ...]:
        """The axes of the input that any number fits."""
        return self.can_free if self.always_free else tuple(a for a in options.free_axes if a in self.can_free)

    def path(self, job: Job) -> Path:
        """Where the file (or folder) goes."""
        return job.stem.with_name(job.stem.name + self.ending)

    def write(self, job: Job, path: Path) -> list[str]:
        """Make the file at ``path``, which is a draft; returns what there is to tell."""
        raise NotImplementedError


def missing(packages: Mapping[str, str]) -> str | None:
    """The line about the first of ``packages`` (module -> what pip calls it) that is not there, None if all are."""
    for module, package in packages.items():
        if importlib.util.find_spec(module) is None:
            return f"package {package} is missing: pip install {package}"
    return None


def check_writable(folder: Path) -> None:
    """Raise InputError: files cannot be made in ``folder``."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}); name a folder with --output") from error


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A path to write to; what is there becomes ``path`` at the end, or nothing is left of it after an error."""
    folder = Path(tempfile.mkdtemp(prefix=".export-", dir=path.parent))
    try:
        yield folder / path.name
        written = folder / path.name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(written, path)  # noqa: PTH105
    finally:
        shutil.rmtree(folder, ignore_errors=True)
