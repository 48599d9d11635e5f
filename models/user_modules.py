"""Layers of your own, in a file of your own.

A python file says by which rule a row of a model yaml becomes its layer::

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

Such a file runs only because a person named it in this very call. A checkpoint holds its name and hash, never a
reason to run it: whoever uses the checkpoint passes ``--modules`` again.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.registry import LAYERS, Registered
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
SHORT = 8  # hex digits of a hash in messages


@dataclass(frozen=True)
class ModuleRecord:
    """A loaded file: its name without folders, the SHA-256 of its bytes, the names its layers have in a yaml."""

    file: str
    sha256: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    path: Path  # absolute, links resolved
    record: ModuleRecord


_LOADED: dict[str, _Loaded] = {}  # by the name in sys.modules
_IMPORTS_RUN = ContextVar("imports_run", default=True)  # whether the imports of a yaml are run


@contextmanager
def trust_yamls(trusted: bool) -> Iterator[None]:
    """While this is entered with False, yamls count like checkpoints: what they import must have been loaded before.

    For yamls that a file names and no person.
    """
    token = _IMPORTS_RUN.set(trusted and _IMPORTS_RUN.get())
    try:
        yield
    finally:
        _IMPORTS_RUN.reset(token)


def loaded_modules() -> list[ModuleRecord]:
    """The files loaded so far, in order."""
    return [entry.record for entry in _LOADED.values()]


def load_modules(paths: Sequence[str | Path], asked_by: str = "--modules") -> list[ModuleRecord]:
    """Run python files that register layers, and say which layers they brought.

    An unchanged file is run once, however often it is asked for; a changed one replaces its former layers.

    Args:
        paths: the files.
        asked_by: the option or yaml key that named them, for messages.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a ``.py`` file, it fails when run, or a layer's name is already taken. Nothing of it stays.
    """
    return [_load(Path(path), asked_by) for path in paths]


def _load(given: Path, asked_by: str) -> ModuleRecord:
    path = given.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{asked_by} {given}: no such python file (looked at {given.absolute()})")
    if path.suffix != ".py":
        raise InputError(f"{asked_by} {given}: expected a python file that registers layers, its name ending in .py")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    name = "_".join(["user_module", re.sub(r"\W", "_", path.stem), sha256[:16]])
    if name in _LOADED:
        return _LOADED[name].record
    former = [key for key, entry in _LOADED.items() if entry.path == path]
    before = dict(LAYERS)
    try:
        for layer in (layer for key in former for layer in _LOADED[key].record.layers):
            LAYERS.pop(layer, None)
        layers = _run(path, content, name)
    except BaseException:
        LAYERS.clear()
        LAYERS.update(before)
        sys.modules.pop(name, None)
        raise
    for key in former:
        del _LOADED[key]
    if not layers:
        LOG.warning("%s registers no layer; put @register(rule) before the class, see models/user_modules.py", path)
    _LOADED[name] = _Loaded(path, ModuleRecord(path.name, sha256, layers))
    LOG.info("%s (sha256 %s): layers %s", path, sha256[:SHORT], ", ".join(layers) or "none")
    return _LOADED[name].record


class _Source(importlib.abc.ExecutionLoader):
    """Runs the very bytes that were hashed; a compiled copy on disk could be older."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.content)


def _run(path: Path, content: bytes, name: str) -> tuple[str, ...]:
    """Run a file as the module ``name``; the names of the layers it registered."""
    before, imported = dict(LAYERS), set(sys.modules)
    loader = _Source(path, content)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # only a package's spec can be missing
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pickle looks for its classes
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(_failure(path, error)) from error
    ours = {module for module in set(sys.modules) - imported if module.startswith("models.")}
    mine = []
    for layer, entry in LAYERS.items():
        old = before.get(layer)
        same = entry is old if layer.startswith("nn.") else entry == old
        if same or entry.cls.__module__ in ours:  # ours: a module of ours first imported by it
            continue
        _refuse_taken(layer, before, path)
        mine.append(layer)
    return tuple(mine)


def _refuse_taken(layer: str, before: Mapping[str, Registered], path: Path) -> None:
    owner = next((str(entry.path) for entry in _LOADED.values() if layer in entry.record.layers), None)
    if layer not in before or (owner is None and layer.startswith("nn.")):  # a rule of one's own for torch's layers
        return
    raise InputError(
        f"{path}: the layer name '{layer}' is already taken by {owner or 'this program'}; "
        f"choose another: @register(rule, name='My{layer.rpartition('.')[2]}')"
    )


def _failure(path: Path, error: BaseException) -> str:
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
    names = {str(entry.path): entry.record.file for entry in _LOADED.values()}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    return f"{names[frames[-1].filename]}:{frames[-1].lineno}: " if frames else ""


def resolve_modules(content: dict[str, Any], source: str, folder: Path | None) -> None:
    """Load what a model yaml imports and note in it, under ``modules``, the files its layers come from.

    Args:
        content: the yaml's mapping; ``imports`` is taken out, ``modules`` put in as ``[{file, sha256}, ...]``.
        source: name of the yaml or checkpoint, for messages.
        folder: where the yaml lies; None for a mapping out of a checkpoint, whose files are never run.

    Raises:
        FileNotFoundError, InputError: a file cannot be loaded, or (without a folder) has not been loaded.
    """
    records: list[ModuleRecord] = []
    if folder is not None and _IMPORTS_RUN.get():
        imports = _imports(content.pop("imports", None), source)
        records += load_modules([folder / Path(name).expanduser() for name in imports], f"{source}: imports")
    require_modules(content, source)
    for wanted in _wanted(content, source):
        found = _find(wanted)
        assert found is not None
        if wanted.sha256 not in ("", found.sha256):
            LOG.warning(
                "%s: made with another %s (sha256 %s) than the one loaded (%s)",
                source, wanted.file, wanted.sha256[:SHORT], found.sha256[:SHORT],
            )  # fmt: skip
        records.append(found)
    rows = [row for key in ("backbone", "head") if isinstance(content[key], list) for row in content[key]]
    used = {row[2] for row in rows if isinstance(row, list) and len(row) > 2 and isinstance(row[2], str)}
    records += [record for record in loaded_modules() if used.intersection(record.layers)]
    content.pop("imports", None)
    content.pop("modules", None)
    if records:
        content["modules"] = [{"file": r.file, "sha256": r.sha256} for r in dict.fromkeys(records)]


def require_modules(content: Mapping[str, Any], source: str, paths: Sequence[str] = ()) -> None:
    """Make sure that every file a model's layers come from has been loaded.

    Args:
        content: a model yaml's mapping.
        source: name of the yaml or checkpoint, for messages.
        paths: where the files once were, if known, for the command line in the message.

    Raises:
        InputError: one has not; the message tells what to pass to ``--modules``.
    """
    missing = [record for record in _wanted(content, source) if _find(record) is None]
    if missing:
        once = {Path(path).name: path for path in paths if isinstance(path, str)}
        names = ", ".join(f"{r.file} (sha256 {r.sha256[:SHORT]}...)" if r.sha256 else r.file for r in missing)
        arguments = shlex.join(once.get(r.file, f"path/to/{r.file}") for r in missing)
        raise InputError(f"{source}: this model needs layers from {names}: pass --modules {arguments}")


def modules_argument(content: Mapping[str, Any]) -> str:
    """ " --modules a.py b.py" with the absolute paths of the files a model's layers come from, or ""."""
    wanted = {(record["file"], record["sha256"]) for record in content.get("modules", ())}
    paths = [str(e.path) for e in _LOADED.values() if (e.record.file, e.record.sha256) in wanted]
    return f" --modules {shlex.join(paths)}" if paths else ""


def _imports(value: Any, source: str) -> list[str]:
    names = [value] if isinstance(value, str) else value or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"{source}: imports must be a python file or a list of them, got {value!r}")
    return names


def _wanted(content: Mapping[str, Any], source: str) -> list[ModuleRecord]:
    """What ``modules`` of a mapping lists; ``imports`` too, which may not be run from there."""
    wanted = [ModuleRecord(Path(name).name, "") for name in _imports(content.get("imports"), source)]
    listed = content.get("modules") or []
    for item in listed if isinstance(listed, list) else [listed]:
        if not (isinstance(item, Mapping) and all(isinstance(item.get(key), str) for key in ("file", "sha256"))):
            raise InputError(f"{source}: modules must list mappings with file and sha256, got {item!r}")
        wanted.append(ModuleRecord(item["file"], item["sha256"]))
    return wanted


def _find(wanted: ModuleRecord) -> ModuleRecord | None:
    """The loaded file of that name, the one with the same content if there are several."""
    found = [record for record in loaded_modules() if record.file == wanted.file]
    return next((record for record in found if record.sha256 == wanted.sha256), found[-1] if found else None)
