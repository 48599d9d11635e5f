"""Your own layers, in a python file that you pass to a command.

The file registers each layer with the rule by which a row of a model yaml becomes one::

    # my_layers.py
    from torch import Tensor, nn

    from models.registry import register

    @register("scaled")  # row arguments: output channels (times width_multiple), then those of the constructor
    class GatedConv(nn.Module):
        def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
            super().__init__()
            self.value = nn.Conv2d(c1, c2, k, s, k // 2)
            self.gate = nn.Conv2d(c1, c2, k, s, k // 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.value(x) * self.gate(x).sigmoid()

and a model yaml uses it, ``- [-1, 1, GatedConv, [128, 3, 2]]``, after either of

* ``imports: my_layers.py`` in the yaml, one file or a list, relative to the yaml;
* ``--modules my_layers.py`` on the command line.

Such a file runs only when the user names it in this very call. A checkpoint holds its name and hash and never makes it
run: to use the checkpoint, pass ``--modules`` again.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.registry import LAYERS, Registered
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
SHORT = 8  # hex digits of a hash in messages


@dataclass(frozen=True)
class ModuleRecord:
    """A loaded file: its name without folders, the SHA-256 of its bytes, the names its layers have in a yaml.

    ``path`` is absolute, with links resolved.
    """

    file: str
    sha256: str
    layers: tuple[str, ...] = ()
    path: Path = field(default=Path(), compare=False)


_LOADED: dict[str, ModuleRecord] = {}  # by the name in sys.modules
_IMPORTS_RUN = ContextVar("imports_run", default=True)  # whether the imports of a yaml are run


@contextmanager
def trust_yamls(trusted: bool) -> Iterator[None]:
    """With False, the modules that a yaml imports are not run in the ``with`` block: they must have been loaded before.

    For yamls that are named in a file and not by the user.
    """
    token = _IMPORTS_RUN.set(trusted and _IMPORTS_RUN.get())
    try:
        yield
    finally:
        _IMPORTS_RUN.reset(token)


def loaded_modules() -> list[ModuleRecord]:
    """The files loaded so far, in order."""
    return list(_LOADED.values())


def load_modules(paths: Sequence[str | Path], named_by: str = "--modules") -> list[ModuleRecord]:
    """Run python files that register layers.

    An unchanged file is run once, however often it is named; a changed one replaces its former layers.

    Args:
        paths: the files.
        named_by: the option or yaml key that named them, for messages.

    Returns:
        A record of each file, with the layers it registered.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a ``.py`` file, it fails when run, or the name of a layer is already taken. Nothing of it stays.
    """
    return [_load_module(Path(path), named_by) for path in paths]


def _load_module(given: Path, named_by: str) -> ModuleRecord:
    path = given.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{named_by} {given}: no such python file (tried {given.absolute()})")
    if path.suffix != ".py":
        raise InputError(f"{named_by} {given}: expected a python file that registers layers, its name ending in .py")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    name = "_".join(["user_module", re.sub(r"\W", "_", path.stem), sha256[:16]])
    if name in _LOADED:
        return _LOADED[name]
    former = {key: record for key, record in _LOADED.items() if record.path == path}
    before = dict(LAYERS)
    try:
        for layer in (layer for record in former.values() for layer in record.layers):
            LAYERS.pop(layer, None)
        layers = _run_module(path, content, name)
    except BaseException:
        LAYERS.clear()
        LAYERS.update(before)
        sys.modules.pop(name, None)
        raise
    for key in former:
        del _LOADED[key]
    if not layers:
        LOG.warning("%s registers no layer; put @register(rule) before the class, see models/user_modules.py", path)
    _LOADED[name] = ModuleRecord(path.name, sha256, layers, path)
    LOG.info("%s (sha256 %s): layers %s", path, sha256[:SHORT], ", ".join(layers) or "none")
    return _LOADED[name]


class _Source(importlib.abc.ExecutionLoader):
    """Loader of the very bytes that were hashed; a compiled copy on disk could be older."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.content)


def _run_module(path: Path, content: bytes, name: str) -> tuple[str, ...]:
    """Run a file as the module ``name``; returns the names of the layers it registered."""
    before, imported = dict(LAYERS), set(sys.modules)
    loader = _Source(path, content)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # only the spec of a package can be missing
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pickle searches for its classes
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(_describe_failure(path, error)) from error
    ours = {module for module in set(sys.modules) - imported if module.startswith("models.")}
    registered = []
    for layer, entry in LAYERS.items():
        old = before.get(layer)
        same = entry is old if layer.startswith("nn.") else entry == old
        if same or entry.cls.__module__ in ours:  # ours: a module of this program that the file is the first to import
            continue
        _refuse_taken(layer, before, path)
        registered.append(layer)
    return tuple(registered)


def _refuse_taken(layer: str, before: Mapping[str, Registered], path: Path) -> None:
    owner = next((str(record.path) for record in _LOADED.values() if layer in record.layers), None)
    if layer not in before or (owner is None and layer.startswith("nn.")):  # layers of torch may get another rule
        return
    raise InputError(
        f"{path}: the layer name '{layer}' is already taken by {owner or 'this program'}; "
        f"choose another: @register(rule, name='My{layer.rpartition('.')[2]}')"
    )


def _describe_failure(path: Path, error: BaseException) -> str:
    """One line: where in the file it failed, and why."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{error.filename or path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    text = f"{path}{f':{lines[-1]}' if lines else ''}: {type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, ModuleNotFoundError):
        text += "; its own folder is not searched: keep helpers in the same file, or add their folder to PYTHONPATH"
    return text


def line_in_module(error: BaseException) -> str:
    """ "my_layers.py:12: " for the innermost line of a loaded file that an error passed through, else ""."""
    names = {str(record.path): record.file for record in _LOADED.values()}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    return f"{names[frames[-1].filename]}:{frames[-1].lineno}: " if frames else ""


def resolve_modules(content: dict[str, Any], source: str, folder: Path | None) -> None:
    """Load the imports of a model yaml and record in it, under ``modules``, the files its layers come from.

    Args:
        content: the mapping of the yaml; ``imports`` is removed, ``modules`` added as ``[{file, sha256}, ...]``.
        source: name of the yaml or checkpoint, for messages.
        folder: of the yaml; None for a mapping from a checkpoint, whose files are never run.

    Raises:
        FileNotFoundError, InputError: a file cannot be loaded, or (without a folder) has not been loaded.
    """
    records: list[ModuleRecord] = []
    if folder is not None and _IMPORTS_RUN.get():
        imports = _read_imports(content.pop("imports", None), source)
        records += load_modules([folder / Path(name).expanduser() for name in imports], f"{source}: imports")
    require_modules(content, source)
    for needed in _needed_modules(content, source):
        record = _loaded_like(needed)
        assert record is not None
        if needed.sha256 not in ("", record.sha256):
            hashes = needed.sha256[:SHORT], record.sha256[:SHORT]
            LOG.warning("%s: made with another %s (sha256 %s) than the one loaded (%s)", source, needed.file, *hashes)
        records.append(record)
    rows = [row for key in ("backbone", "head") if isinstance(content[key], list) for row in content[key]]
    used = {row[2] for row in rows if isinstance(row, list) and len(row) > 2 and isinstance(row[2], str)}
    records += [record for record in loaded_modules() if used.intersection(record.layers)]
    content.pop("imports", None)
    content.pop("modules", None)
    if records:
        content["modules"] = [{"file": r.file, "sha256": r.sha256} for r in dict.fromkeys(records)]


def require_modules(content: Mapping[str, Any], source: str, paths: Sequence[str] = ()) -> None:
    """Raise InputError, with the files to pass to ``--modules``, if a layer's file has not been loaded.

    Args:
        content: mapping of a model yaml.
        source: name of the yaml or checkpoint, for messages.
        paths: where the files once were, if known, for the command line in the message.
    """
    missing = [record for record in _needed_modules(content, source) if _loaded_like(record) is None]
    if missing:
        once = {Path(path).name: path for path in paths if isinstance(path, str)}
        names = ", ".join(f"{r.file} (sha256 {r.sha256[:SHORT]}...)" if r.sha256 else r.file for r in missing)
        arguments = shlex.join(once.get(r.file, f"path/to/{r.file}") for r in missing)
        raise InputError(f"{source}: this model needs layers from {names}: pass --modules {arguments}")


def modules_argument(content: Mapping[str, Any]) -> str:
    """ " --modules a.py b.py" with the absolute paths of the files that the layers of a model come from, or ""."""
    needed = {(record["file"], record["sha256"]) for record in content.get("modules", ())}
    paths = [str(record.path) for record in _LOADED.values() if (record.file, record.sha256) in needed]
    return f" --modules {shlex.join(paths)}" if paths else ""


def _read_imports(value: Any, source: str) -> list[str]:
    names = [value] if isinstance(value, str) else value or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"{source}: imports must be a python file or a list of them, got {value!r}")
    return names


def _needed_modules(content: Mapping[str, Any], source: str) -> list[ModuleRecord]:
    """The files that ``modules`` of a mapping lists; those of ``imports`` too, which are not run here."""
    needed = [ModuleRecord(Path(name).name, "") for name in _read_imports(content.get("imports"), source)]
    listed = content.get("modules") or []
    for item in listed if isinstance(listed, list) else [listed]:
        if not (isinstance(item, Mapping) and all(isinstance(item.get(key), str) for key in ("file", "sha256"))):
            raise InputError(f"{source}: modules must list mappings with file and sha256, got {item!r}")
        needed.append(ModuleRecord(item["file"], item["sha256"]))
    return needed


def _loaded_like(needed: ModuleRecord) -> ModuleRecord | None:
    """The loaded file of that name, the one with the same content if there are several."""
    of_name = [record for record in loaded_modules() if record.file == needed.file]
    return next((record for record in of_name if record.sha256 == needed.sha256), of_name[-1] if of_name else None)
