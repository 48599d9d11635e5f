"""TorchScript files (``.torchscript``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.metadata import from_json, from_text

CONFIG = "config.txt"  # the file inside the archive, as in v6.1


class TorchScriptBackend(FileBackend):
    """One ``.torchscript`` file."""

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None) -> None:
        extra = {CONFIG: ""}
        with reading(file, "a TorchScript file"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # said once, when the file is made
            with file.open("rb") as stream:  # a stream: names outside ASCII trouble torch on some systems
                module = torch.jit.load(stream, map_location=device, _extra_files=extra)
            said = extra[CONFIG]
            info = from_text(from_json(said), file, names)
        super().__init__(info, file, device)
        self.module = module.eval()

    @torch.no_grad()
    def run(self, images: Tensor) -> Sequence[Any]:
        output = self.module(images.to(self.device))
        return output if isinstance(output, (tuple, list)) else [output]
