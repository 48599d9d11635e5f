"""Base of all export formats, and where their files are written."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from models.dynamic_convolution import DynamicForm
from utils.config.export_options import ExportOptions
from utils.core.errors import InputError
from utils.core.output import temporary_folder
from utils.export.check import Proof, prove
from utils.export.export_job import ExportJob
from utils.inference.backends import FileBackend, open_exported
from utils.inference.backends.base import NeedsTrustError

LOG = logging.getLogger(__name__)


class Exporter:
    """One format.

    Attributes:
        name: what ``--include`` calls it.
        ending: of its files.
        packages: module to import -> package of pip, for making and running a file.
        forms: how dynamic layers can be computed in this format, the best first.
        fixed_forms: further forms for a file of a fixed batch.
        for_one: the best of them for a file that takes one image a call; None: the first of ``forms``. An
            ordinary convolution with a computed kernel, where the runtime has a fast one: for 3x3 layers half the time
            of a product with patches.
        can_free: the axes that can be free; with ``always_free`` they are, whatever the options.
        content_is_checked: without ``--trust`` its files are opened only if everything in them is known.
    """

    name: ClassVar[str]
    ending: ClassVar[str]
    packages: ClassVar[dict[str, str]] = {}
    forms: ClassVar[tuple[DynamicForm, ...]] = (DynamicForm.MATMUL, DynamicForm.PATCHES, DynamicForm.MERGED)
    fixed_forms: ClassVar[tuple[DynamicForm, ...]] = (DynamicForm.GROUPED, DynamicForm.SINGLE)
    for_one: ClassVar[DynamicForm | None] = DynamicForm.SINGLE
    can_free: ClassVar[tuple[str, ...]] = ("batch", "height", "width")
    always_free: ClassVar[bool] = False
    content_is_checked: ClassVar[bool] = False

    def obstacle(self, job: ExportJob) -> str | None:
        """Why the file cannot be made here, before any work is done; None if it can."""
        return missing(self.packages)

    def form(self, options: ExportOptions) -> DynamicForm:
        """The form of dynamic layers: that of ``--dynamic-form``, else the best one of the format.

        Raises:
            InputError: the requested form does not run in this format.
        """
        fixed_batch = "batch" not in self.free(options)
        if options.dynamic_form == "auto":
            if options.int8 and DynamicForm.MERGED in self.forms:
                return DynamicForm.MERGED
            return self.for_one if self.for_one and fixed_batch and options.batch_size == 1 else self.forms[0]
        wanted = DynamicForm(options.dynamic_form)
        frozen = self.fixed_forms if fixed_batch else ()
        allowed = self.forms + tuple(form for form in frozen if form not in self.forms)
        if wanted not in allowed:
            known = ", ".join(form.value for form in allowed)
            raise InputError(f"--dynamic-form {wanted.value} does not run as {self.name}; possible are {known}")
        return wanted

    def free(self, options: ExportOptions) -> tuple[str, ...]:
        """The axes of the input that can have any size."""
        return self.can_free if self.always_free else tuple(a for a in options.free_axes if a in self.can_free)

    def path(self, job: ExportJob) -> Path:
        """Where the file (or folder) goes."""
        return job.stem.with_name(job.stem.name + self.ending)

    def write(self, job: ExportJob, path: Path) -> list[str]:
        """Make the file at ``path``, a temporary place; returns notes for the table."""
        raise NotImplementedError

    def check(self, job: ExportJob, path: Path) -> tuple[nn.Module | None, Proof]:
        """Open the file at ``path`` and compare it with PyTorch.

        Returns:
            A module that runs it (None where this system cannot), and the result of the comparison.

        Raises:
            InputError: it cannot be read, does not run, or computes something else.
        """
        backend, note = self.opened(job, path)
        return backend, replace(prove(backend, job), note=note)

    def opened(self, job: ExportJob, path: Path) -> tuple[FileBackend, str]:
        """Open the file as its users will; returns a note about that as well.

        Raises:
            InputError: it cannot be read.
        """
        if self.content_is_checked:
            try:
                return open_exported(path, job.device), ""
            except NeedsTrustError:
                return open_exported(path, job.device, own=True), "its users need --trust"
        return open_exported(path, job.device, own=True), ""


def missing(packages: Mapping[str, str]) -> str | None:
    """A line about the first of ``packages`` (module -> package of pip) that is missing, None if there is none."""
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


def _files(folder: Path) -> set[str]:
    """All files below a folder, as paths relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A temporary path to write to; at the end the file is moved to ``path``, after an error it is removed."""
    with temporary_folder(path.parent, ".export-") as folder:
        written = folder / path.name
        yield written
        if path.is_dir() and not path.is_symlink():
            if others := sorted(_files(path) - _files(written)):
                raise InputError(f"{path}: holds {others[0]}, which is not of this export; move it or the folder away")
            shutil.rmtree(path)
        os.replace(written, path)  # noqa: PTH105
