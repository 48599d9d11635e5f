"""The data yaml: where the pictures of each split lie and what the classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.paths import find_yaml
from utils.errors import InputError, nearest
from utils.files import read_yaml

SPLITS = ("train", "val", "test")
KNOWN_KEYS = ("path", *SPLITS, "nc", "names", "download", "generate")
# Written by a labelling service into every file it exports; says where the set came from and nothing we use.
_NOTES = frozenset({"roboflow"})


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set as its yaml describes it. All paths are absolute; whether they exist is asked of ``sources``.

    Attributes:
        source: the yaml file.
        root: folder that relative splits refer to.
        train, val, test: image folders, image files or ``.txt`` lists of each split; empty where the yaml has none.
        nc: number of classes; ``names``: their names, ``len(names) == nc``.
        generate: name of a built-in generator that makes the pictures, or None.
        download: where the pictures can be had, shown in messages only: nothing is ever fetched or run from here.
        searched: the folders against which relative paths were tried, in this order.
    """

    source: Path
    root: Path
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]
    nc: int
    names: tuple[str, ...]
    generate: str | None = None
    download: str | None = None
    searched: tuple[Path, ...] = ()

    @classmethod
    def load(cls, path: str | Path, single_cls: bool = False) -> DatasetSpec:
        """Read a data yaml, given by path or by its bare name in ``data``.

        ``path:`` is tried against the folder of the yaml, then against the working directory; so is every relative
        split when it is not there. With ``single_cls`` all classes count as one, called "item" as in v6.1 unless the
        set has only one class anyway.

        Raises:
            FileNotFoundError: no such yaml.
            InputError: unknown key, class count and names at odds, no split; the message names the file and the key.
        """
        file = find_yaml(path, "data")
        content = read_yaml(file)
        if not isinstance(content, Mapping):
            raise InputError(f"{file}: expected 'key: value' lines such as train:, val: and names:")
        _check_keys(content, file)
        names = _class_names(content, file)
        if single_cls and len(names) != 1:
            names = ("item",)
        bases = _bases(content.get("path"), file)
        root = next((base for base in bases if base.is_dir()), bases[0])
        paths = {split: _split_paths(content.get(split), split, root, bases, file) for split in SPLITS}
        if not any(paths.values()):
            raise InputError(f"{file}: no pictures named; give at least one of train:, val:, test:")
        return cls(
            source=file,
            root=root,
            train=paths["train"],
            val=paths["val"],
            test=paths["test"],
            nc=len(names),
            names=names,
            generate=_text(content, "generate", file),
            download=_text(content, "download", file),
            searched=bases,
        )

    def sources(self, split: str) -> list[Path]:
        """Existing folders, files and lists of a split ("train", "val" or "test").

        Raises:
            InputError: unknown split, or one the yaml does not name.
            FileNotFoundError: a path is not there; the message lists every absolute path tried.
        """
        if split not in SPLITS:
            raise InputError(f"unknown split '{split}'; there are {', '.join(SPLITS)}")
        paths: tuple[Path, ...] = getattr(self, split)
        if not paths:
            raise InputError(f"{self.source}: no '{split}:' key, so there is no {split} set to read")
        return [self._existing(path, split) for path in paths]

    def _existing(self, path: Path, split: str) -> Path:
        tried = [path]
        if path.is_relative_to(self.root):
            tried += [base / path.relative_to(self.root) for base in self.searched]
        tried = list(dict.fromkeys(candidate.resolve() for candidate in tried))
        for candidate in tried:
            if candidate.exists():
                return candidate
        hint = ""
        if self.download is not None and self.download.startswith(("http://", "https://")):
            hint = f"; the set can be had from {self.download}"
        places = ", ".join(map(str, tried))
        raise FileNotFoundError(f"{self.source}: {split} pictures not found; tried {places}; correct 'path:'{hint}")


def _check_keys(content: Mapping[Any, Any], file: Path) -> None:
    for key in content:
        if key in KNOWN_KEYS or key in _NOTES or str(key).startswith("x-"):
            continue
        raise InputError(
            f"{file}: unknown key '{key}'{nearest(str(key), KNOWN_KEYS)} (known: {', '.join(KNOWN_KEYS)}; "
            f"notes of your own start with x-)"
        )


def _text(content: Mapping[Any, Any], key: str, file: Path) -> str | None:
    value = content.get(key)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{file}: {key}: {value!r} is not text")


def _class_names(content: Mapping[Any, Any], file: Path) -> tuple[str, ...]:
    """Names from ``names:`` (list, or mapping from 0), else class0, class1 ... from ``nc:``."""
    nc, names = content.get("nc"), content.get("names")
    if nc is not None and (isinstance(nc, bool) or not isinstance(nc, int) or nc < 1):
        raise InputError(f"{file}: nc: {nc!r} is not a whole number of at least 1")
    if names is None:
        if nc is None:
            raise InputError(f"{file}: no classes; give names: (a list of class names)")
        return tuple(f"class{i}" for i in range(nc))
    if isinstance(names, Mapping):
        if set(names) != set(range(len(names))):
            raise InputError(f"{file}: names: the keys must be 0 to {len(names) - 1}, found {sorted(map(str, names))}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file}: names: {names!r} is not a list of class names")
    for i, name in enumerate(names):
        # An unquoted yes, no, on, off is a truth value in yaml, and an empty entry is None.
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise InputError(f"{file}: names: class {i} is {name!r}, not text; put the name in quotes")
    if nc is not None and nc != len(names):
        raise InputError(f"{file}: nc: {nc} but names: has {len(names)} entries; correct one of them or leave out nc:")
    return tuple(str(name) for name in names)


def _bases(given: Any, file: Path) -> tuple[Path, ...]:
    """Absolute folders that ``path:`` may mean, best first."""
    if given is not None and not isinstance(given, str):
        raise InputError(f"{file}: path: {given!r} is not text")
    relative = Path(given or "").expanduser()
    return tuple(dict.fromkeys((start / relative).resolve() for start in (file.parent, Path.cwd())))


def _split_paths(entry: Any, split: str, root: Path, bases: tuple[Path, ...], file: Path) -> tuple[Path, ...]:
    """Absolute paths of one split: where they exist, else where they should be."""
    entries = entry if isinstance(entry, list) else [] if entry is None else [entry]
    paths = []
    for item in entries:
        if not isinstance(item, str) or not item:
            raise InputError(f"{file}: {split}: {item!r} is not a path")
        tried = [(base / Path(item).expanduser()).resolve() for base in (root, *bases)]
        paths.append(next((path for path in tried if path.exists()), tried[0]))
    return tuple(paths)
