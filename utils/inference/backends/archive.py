"""A look into a ``.pt2`` archive before torch opens it: torch would run pickles and expressions that it finds there."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from utils.errors import InputError

# Keys of the archive's JSON whose text torch evaluates: sizes such as 32*s0, and conditions on them.
EVALUATED = ("expr_str", "guards_code")
_ALLOWED = (
    ast.Expression, ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Subscript,
    ast.Attribute, ast.keyword, ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_CALLS = frozenset({
    "size", "stride", "storage_offset", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "Max", "Min", "Eq", "Ne",
    "Integer", "Symbol", "Add", "Mul", "Pow", "sym_max", "sym_min",
})  # fmt: skip


def check_archive(file: Path) -> None:
    """Refuse an archive that holds more than tensors, a graph and arithmetic on sizes.

    Raises:
        InputError: pickled objects, compiled code, or an expression that is no such arithmetic.
    """
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            inner = name.partition("/")[2]
            if inner.endswith(".pt"):
                content = archive.read(name)  # nothing where the maker kept no sample pictures
                unknown = content and torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
                if unknown:
                    raise InputError(f"{file}: refused, it holds pickled objects: {', '.join(sorted(unknown))}")
            elif "aotinductor" in inner:
                raise InputError(f"{file}: refused, it holds compiled code: the name of such a file ends in _aoti.pt2")
            elif "custom_obj" in inner:
                raise InputError(f"{file}: refused, it holds compiled or pickled parts: {inner}")
            elif inner.endswith(".json"):
                _check_json(file, json.loads(archive.read(name)))


def _check_json(file: Path, content: Any) -> None:
    for key, value in _entries(content):
        if key == "use_pickle" and value:
            raise InputError(f"{file}: refused, its tensors are pickled")
        texts = value if isinstance(value, list) else [value]
        for text in texts if key in EVALUATED else ():
            if not isinstance(text, str) or not _is_arithmetic(text):
                raise InputError(f"{file}: refused, it would run {text!r}")


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value)


def _is_arithmetic(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            return False
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called not in _CALLS:
                return False
        if isinstance(node, ast.Attribute) and node.attr not in _CALLS:
            return False
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            return False
    return True
