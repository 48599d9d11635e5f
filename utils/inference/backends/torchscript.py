"""TorchScript files (``.torchscript``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.checkpoint.archive import read_records
from utils.core.errors import InputError
from utils.inference.backends.base import FileBackend, NeedsTrustError, reading
from utils.inference.backends.metadata import from_json, from_text
from utils.inference.backends.torchscript_source import CODE, TORCHSCRIPT_RECORDS, read_script

CONFIG = "config.txt"  # the file inside the archive, as in v6.1


class TorchScriptBackend(FileBackend):
    """One ``.torchscript`` file.

    Args:
        trust: let PyTorch run all code in it; otherwise its code is read as data, and is refused if it is more than
            the operations of a detector.
    """

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        self.module: Any
        if trust:
            text, module = _open_trusted(file, device)
        else:
            with reading(file, "a TorchScript file"):
                try:
                    records = read_records(file, TORCHSCRIPT_RECORDS, rf"{CODE}(\.debug_pkl)?")
                    module = read_script(records).to(device)
                except (InputError, KeyError, SyntaxError, TypeError, ValueError) as error:
                    raise NeedsTrustError(
                        f"{file}: {_reason(error)[:300]}; if you trust its maker, give --trust"
                    ) from error
                text = records.get(f"extra/{CONFIG}", b"").decode()
        with reading(file, "a TorchScript file"):
            info = from_text(from_json(text), file, names)
        super().__init__(info, file, device)
        self.module = module

    @torch.no_grad()
    def run(self, images: Tensor) -> Sequence[Any]:
        output = self.module(images.to(self.device))
        return output if isinstance(output, (tuple, list)) else [output]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"cannot be read as straight-line code ({error})"


def _open_trusted(file: Path, device: torch.device) -> tuple[str, Any]:
    """Return the metadata of the file, and its network, which PyTorch runs."""
    extra = {CONFIG: ""}
    with reading(file, "a TorchScript file"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # shown once, when the file is made
        with file.open("rb") as stream:  # a stream: on some systems torch cannot open names outside ASCII
            module = torch.jit.load(stream, map_location=device, _extra_files=extra)
    return extra[CONFIG], module.eval()
