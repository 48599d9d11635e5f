"""Files of ``torch.export`` (``.pt2``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import InputError
from utils.inference.backends.archive import check_archive
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.metadata import from_json, from_text

ABOUT = "about.json"  # the file inside the archive


class ExportedProgramBackend(FileBackend):
    """One ``.pt2`` file. What it would run besides the model is looked for first, and refused."""

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None) -> None:
        extra: dict[str, Any] = {ABOUT: ""}
        with reading(file, "a torch.export file"), _quiet():
            check_archive(file)
            with file.open("rb") as stream:
                module = torch.export.load(stream, extra_files=extra).module().to(device)
            said = extra.get(ABOUT)
            if not said:
                raise InputError(f"{file}: not exported by this program; make it with export.py --include pt2")
            info = from_text(from_json(said), file, names)
        super().__init__(info, file, device)
        self.module = module

    @torch.no_grad()
    def run(self, images: Tensor) -> Sequence[Any]:
        return [self.module(images.to(self.device))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the traceback that torch logs about a broken file before it raises."""
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
