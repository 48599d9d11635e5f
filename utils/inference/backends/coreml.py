"""Core ML packages (``.mlpackage``), which macOS runs."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.core.errors import InputError, first_line
from utils.core.packages import import_optional
from utils.inference.backends.base import FileBackend, checking_content, reading
from utils.inference.backends.checked_coreml import checked_copy
from utils.inference.backends.metadata import KEY, from_text

INPUT, OUTPUT = "images", "boxes"


def runs_here() -> bool:
    """Whether this system computes Core ML models; others can only make and read them."""
    return platform.system() == "Darwin"


class CoreMLBackend(FileBackend):
    """One package, on whatever macOS chooses: processor, GPU or neural engine.

    Args:
        trust: open the package as it is; otherwise its content is checked, and a copy of what was checked is opened.
    """

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        if not runs_here():
            raise InputError(f"{file}: Core ML files run on macOS only; on {platform.system()} use another format")
        coremltools = import_optional("coremltools", "coremltools", f"{file}")
        opened, copied = file, None if trust else tempfile.TemporaryDirectory(prefix="coreml-")
        if copied is not None:
            with checking_content(file, "a Core ML package"):
                opened = checked_copy(file, Path(copied.name), coremltools.proto.Model_pb2.Model)
        with reading(file, "a Core ML package"):
            model = coremltools.models.MLModel(str(opened))
            text = dict(model.user_defined_metadata)
            if KEY not in text:
                raise InputError(f"{file}: not exported by this program; make it with export.py --include coreml")
            info = from_text(text, file, names)
        super().__init__(info, file, device)
        self.model, self._copied = model, copied  # the copy is there as long as this is

    def run(self, images: Tensor) -> Sequence[Any]:
        try:
            return [self.model.predict({INPUT: images.float().cpu().numpy()})[OUTPUT]]
        except Exception as error:  # of the system's own kinds
            raise InputError(f"{self.file}: Core ML cannot run it: {first_line(error)}") from error
