"""The zip archives of torch (``.pt``, ``.pt2``, ``.torchscript``): the one place that decides what in them is read.

torch looks records up by rules of its own (the folder is left out, two directories at the end of a file are told apart
otherwise than elsewhere, a size is believed). So torch never sees the file: its records are read here, each by its
exact name, and where torch is to read a pickle it gets an archive written anew from the records that were checked.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.core.files import every_value

# What the pickle of a state dict names: tensors by their storages, and nothing that could take memory or be called.
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
PLAIN_NAMES = frozenset(
    ["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"]
    + [f"torch.{kind}Storage" for kind in _STORAGES]
)
PICKLE = r"data\.pkl|data/\d+|byteorder|version"
_IGNORED = r"\.data/\w+|\.format_version|\.storage_alignment"  # written by torch, of no use here
_MOST_INFLATED = 64 << 20  # bytes
_MOST_SHARED = 4  # times that a stored tensor is used on average


def read_records(file: Path, known: str, text: str = r"(?!)") -> dict[str, bytes]:
    """The records of an archive by their names without the one folder around them.

    Args:
        known: pattern that each name must match as a whole.
        text: pattern of those among them that may be compressed, as torch does with source code.

    Raises:
        ValueError: another name, a name twice, compression, or sizes that the file cannot hold.
        zipfile.BadZipFile: no archive, or damaged.
    """
    found: dict[str, bytes] = {}
    names, compressible = re.compile(f"(?:{known}|{_IGNORED})", re.ASCII), re.compile(text, re.ASCII)
    room, inflated = file.stat().st_size, _MOST_INFLATED
    with zipfile.ZipFile(file) as archive:
        folders = {entry.orig_filename.partition("/")[0] for entry in archive.infolist()}
        if len(folders) > 1:
            raise ValueError("refused, its records lie in several folders or in none")
        for entry in archive.infolist():
            name = entry.orig_filename.partition("/")[2]
            if not names.fullmatch(name):
                raise ValueError(f"refused, it holds {entry.orig_filename[:200]!r}, which no such file needs")
            if name in found:
                raise ValueError(f"refused, it holds {name!r} twice")
            if entry.compress_type == zipfile.ZIP_DEFLATED and compressible.fullmatch(name):
                inflated -= entry.file_size
            elif entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"refused, {name!r} is compressed, which torch never does")
            room -= entry.compress_size
            if room < 0 or inflated < 0:
                raise ValueError("refused, its records are said to be larger than the file can hold")
            found[name] = archive.read(entry)
    return found


def archive_of(records: MutableMapping[str, bytes]) -> io.BytesIO:
    """An archive for ``torch.load`` that holds exactly these records, which are taken out: they may be gigabytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in list(records):
            archive.writestr(f"archive/{name}", records.pop(name))
    buffer.seek(0)
    return buffer


def names_in(pickle: bytes) -> set[str]:
    """The dotted names that a pickle refers to; nothing of it is run.

    Raises:
        ValueError: it is no pickle.
    """
    found = (argument for code, argument, _ in pickletools.genops(pickle) if code.name == "GLOBAL")
    return {str(argument).replace(" ", ".") for argument in found}


def load_pickle(records: MutableMapping[str, bytes], allowed: Iterable[Any] = ()) -> Any:
    """What ``data.pkl`` and its storages hold, on the CPU; nothing is left of ``records``.

    Args:
        allowed: (class, dotted name) of what it may name besides torch's own tensors.
    """
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(archive_of(records), map_location="cpu", weights_only=True)


def check_values(content: Any) -> None:
    """Raise ValueError: endless or enormous nesting, or a tensor that is not what is stored of it."""
    check_tensors([value for value in every_value(content) if isinstance(value, Tensor)])


def check_tensors(tensors: Sequence[Tensor]) -> None:
    """Raise ValueError: one is not what is stored of it, or the same bytes are used again and again: each use may
    become memory of its own."""
    for value in tensors:
        check_tensor(value)
    used = sum(value.numel() * value.element_size() for value in tensors)
    storages = (value.untyped_storage() for value in tensors)
    stored = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if used > _MOST_SHARED * stored:
        raise ValueError(f"refused, its tensors have {used} bytes together, and {stored} are stored of them")


def check_tensor(value: Tensor) -> None:
    """Raise ValueError: not an ordinary tensor, or one that says it is larger than what is stored of it."""
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"refused, it holds a tensor of an uncommon kind ({value.layout}, {value.device})")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"refused, a tensor {list(value.shape)} is larger than what is stored of it")
