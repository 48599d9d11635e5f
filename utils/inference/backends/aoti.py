"""AOTInductor packages (``_aoti.pt2``): the network as machine code.

Such a file can do whatever a program can, so it is only opened for those who trust its maker (``--trust``). What it
says of itself is read first, and nothing of it runs until that fits.
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

PROCESSOR = "processor"  # our key for what the code needs of it; the others are those of torch
_DEVICE, _SYSTEM = "AOTI_DEVICE_KEY", "AOTI_PLATFORM"
_VECTORS = ("DEFAULT", "AVX2", "AVX512")  # each has all of those before it
_MOST_BYTES = 1 << 20


class AOTInductorBackend(FileBackend):
    """One package, on the kind of device and processor it was compiled for."""

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None) -> None:
        with reading(file, "an AOTInductor package"):
            said = said_by(file)
        info = from_text(said, file, names)
        check_fits(file, said, device)
        super().__init__(info, file, device)
        with reading(file, "an AOTInductor package"):
            self.package = loaded(file, device)

    @torch.no_grad()
    def run(self, images: Tensor) -> Sequence[Any]:
        # The code goes through the memory as it lies, without a look at the strides.
        return [self.package(images.to(self.device).contiguous())]


def loaded(file: Path, device: torch.device) -> Any:
    """The code of a package, which begins to run here.

    What torch offers for this starts a C++ compiler, to compare the vectors that it finds with those of the package;
    they are compared already, and most machines have none.
    """
    from torch._C import _aoti
    from torch.export.pt2_archive._package import AOTICompiledModel

    index = -1 if device.index is None else device.index
    return AOTICompiledModel(_aoti.AOTIModelPackageLoader(str(file), "model", False, 1, index))


def said_by(file: Path) -> dict[str, str]:
    """What a package says of itself; nothing in it is run.

    Raises:
        InputError: no package, or not one of this program. Whatever ``zipfile`` and ``json`` raise on a broken file.
    """
    with zipfile.ZipFile(file) as archive:
        inside = [entry for entry in archive.infolist() if "/data/aotinductor/" in f"/{entry.filename}"]
        if not inside:
            raise InputError(f"{file}: no machine code in it; a file of torch.export ends in .pt2 without _aoti")
        for entry in inside:
            if entry.filename.endswith("_metadata.json") and entry.file_size <= _MOST_BYTES:
                said = json.loads(archive.read(entry))
                if isinstance(said, dict) and KEY in said:
                    return {str(key): str(value) for key, value in said.items()}
    raise InputError(f"{file}: not exported by this program; make it with export.py --include aoti")


def check_fits(file: Path, said: Mapping[str, str], device: torch.device) -> None:
    """Raise InputError: the code is for another kind of device, system or processor and would end this process."""
    made_for, system = said.get(_DEVICE, ""), said.get(_SYSTEM, "")
    if made_for != device.type:
        fitting = "cpu" if made_for == "cpu" else "0"
        raise InputError(f"{file}: compiled for {made_for}, asked for {device.type}: give --device {fitting}")
    here = torch.backends.cpu.get_cpu_capability()
    needed = said.get(PROCESSOR, "")
    enough = needed == here or (needed in _VECTORS and here in _VECTORS[_VECTORS.index(needed) :])
    if system != sys.platform or not enough:
        raise InputError(
            f"{file}: compiled on {system} for processors with {needed}, this is {sys.platform} with {here}: "
            "export it on a machine like this one"
        )
