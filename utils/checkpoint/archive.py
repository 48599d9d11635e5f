"""Safe reading of the zip archives of torch (``.pt``, ``.pt2``, ``.torchscript``).

torch's own reader ignores the folder of a record, reads another directory than zipfile when a file has two, and trusts
declared sizes. So torch never gets the file: the records are read here by their exact names, and torch reads a pickle
from a new archive with the checked records.
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

# Names in the pickle of a state dict: tensors and their storages, nothing that allocates memory or runs code.
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
PLAIN_NAMES = frozenset(
    ["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"]
    + [f"torch.{kind}Storage" for kind in _STORAGES]
)
PICKLE = r"data\.pkl|data/\d+|byteorder|version"
_IGNORED = r"\.data/\w+|\.format_version|\.storage_alignment"  # written by torch, not needed here
_MOST_INFLATED = 64 << 20  # bytes
_MOST_SHARED = 4  # times that a stored tensor is used on average


def read_records(file: Path, known: str, text: str = r"(?!)") -> dict[str, bytes]:
    """Read the records of an archive; the keys are their names without the common folder.

    Args:
        known: pattern that each whole name must match.
        text: pattern of the names that may be compressed, as torch does with source code.

    Raises:
        ValueError: another name, a repeated name, compression, or sizes larger than the file.
        zipfile.BadZipFile: not an archive, or damaged.
    """
    records: dict[str, bytes] = {}
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
            if name in records:
                raise ValueError(f"refused, it holds {name!r} twice")
            if entry.compress_type == zipfile.ZIP_DEFLATED and compressible.fullmatch(name):
                inflated -= entry.file_size
            elif entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"refused, {name!r} is compressed, which torch never does")
            room -= entry.compress_size
            if room < 0 or inflated < 0:
                raise ValueError("refused, its records are said to be larger than the file can hold")
            records[name] = archive.read(entry)
    return records


def archive_of(records: MutableMapping[str, bytes]) -> io.BytesIO:
    """Return an archive for ``torch.load`` with exactly these records; ``records`` is emptied to save memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in list(records):
            archive.writestr(f"archive/{name}", records.pop(name))
    buffer.seek(0)
    return buffer


def names_in(pickle: bytes) -> set[str]:
    """Return the dotted names in a pickle, without running it.

    Raises:
        ValueError: not a pickle.
    """
    arguments = (argument for code, argument, _ in pickletools.genops(pickle) if code.name == "GLOBAL")
    return {str(argument).replace(" ", ".") for argument in arguments}


def load_pickle(records: MutableMapping[str, bytes], allowed: Iterable[Any] = ()) -> Any:
    """Load ``data.pkl`` and its storages to the CPU; ``records`` is emptied.

    Args:
        allowed: (class, dotted name) that it may use besides tensors.
    """
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(archive_of(records), map_location="cpu", weights_only=True)


def check_values(content: Any) -> None:
    """Raise ValueError for endless or very deep nesting, or for a tensor that :func:`check_tensors` refuses."""
    check_tensors([value for value in every_value(content) if isinstance(value, Tensor)])


def check_tensors(tensors: Sequence[Tensor]) -> None:
    """Raise ValueError for a tensor that :func:`check_tensor` refuses, or when the tensors share storages too often,
    since each may need separate memory later."""
    for value in tensors:
        check_tensor(value)
    used = sum(value.numel() * value.element_size() for value in tensors)
    storages = (value.untyped_storage() for value in tensors)
    stored = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if used > _MOST_SHARED * stored:
        raise ValueError(f"refused, its tensors have {used} bytes together, and {stored} are stored of them")


def check_tensor(value: Tensor) -> None:
    """Raise ValueError for an unusual kind of tensor, or for a tensor that is larger than its storage."""
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ValueError(f"refused, it holds a tensor of an uncommon kind ({value.layout}, {value.device})")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"refused, a tensor {list(value.shape)} is larger than what is stored of it")
