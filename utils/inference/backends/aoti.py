"""AOTInductor packages (``_aoti.pt2``): the network as machine code.

Such a file can do everything that a program can, so it is only opened with ``--trust``. Its metadata is read and
checked first, before any of its code runs.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.metadata import KEY, from_text

PROCESSOR = "processor"  # our key for the instruction set that the code needs; the other keys are those of torch
_DEVICE, _SYSTEM = "AOTI_DEVICE_KEY", "AOTI_PLATFORM"
_VECTORS = ("DEFAULT", "AVX2", "AVX512")  # each has all of those before it
_MOST_BYTES = 1 << 20


class AOTInductorBackend(FileBackend):
    """One package, on the kind of device and processor it was compiled for."""

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None) -> None:
        with reading(file, "an AOTInductor package"):
            text = package_metadata(file)
        info = from_text(text, file, names)
        check_machine(file, text, device)
        super().__init__(info, file, device)
        with reading(file, "an AOTInductor package"):
            self.package = load_package(file, device)

    @torch.no_grad()
    def run(self, images: Tensor) -> Sequence[Any]:
        # The code ignores the strides of a tensor.
        return [self.package(images.to(self.device).contiguous())]


def load_package(file: Path, device: torch.device) -> Any:
    """Load the code of a package; it can run from here on.

    The function of torch for this starts a C++ compiler, which most machines do not have, to compare the vector
    instructions of machine and package; :func:`check_machine` compares them already.
    """
    from torch._C import _aoti
    from torch.export.pt2_archive._package import AOTICompiledModel

    index = -1 if device.index is None else device.index
    return AOTICompiledModel(_aoti.AOTIModelPackageLoader(str(file), "model", False, 1, index))


def package_metadata(file: Path) -> dict[str, str]:
    """Read the metadata of a package without running its code.

    Raises:
        InputError: no package, or not one of this program.
        BadZipFile, ValueError: a broken file.
    """
    with zipfile.ZipFile(file) as archive:
        inside = [entry for entry in archive.infolist() if "/data/aotinductor/" in f"/{entry.filename}"]
        if not inside:
            raise InputError(f"{file}: no machine code in it; a file of torch.export ends in .pt2 without _aoti")
        for entry in inside:
            if entry.filename.endswith("_metadata.json") and entry.file_size <= _MOST_BYTES:
                content = json.loads(archive.read(entry))
                if isinstance(content, dict) and KEY in content:
                    return {str(key): str(value) for key, value in content.items()}
    raise InputError(f"{file}: not exported by this program; make it with export.py --include aoti")


def check_machine(file: Path, text: Mapping[str, str], device: torch.device) -> None:
    """Raise InputError: the code is for another kind of device, system or processor and would crash this process."""
    made_for, system = text.get(_DEVICE, ""), text.get(_SYSTEM, "")
    if made_for != device.type:
        fitting = "cpu" if made_for == "cpu" else "0"
        raise InputError(f"{file}: compiled for {made_for}, requested is {device.type}: give --device {fitting}")
    here = torch.backends.cpu.get_cpu_capability()
    needed = text.get(PROCESSOR, "")
    enough = needed == here or (needed in _VECTORS and here in _VECTORS[_VECTORS.index(needed) :])
    if system != sys.platform or not enough:
        raise InputError(
            f"{file}: compiled on {system} for processors with {needed}, this is {sys.platform} with {here}: "
            "export it on a machine like this one"
        )
