"""The data yaml: where the images of each split lie and what the classes are called."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.config.categories import cvat_names, is_cvat, is_labelme, read_categories
from utils.config.paths import find_yaml
from utils.core.downloads import RemoteFile, is_sha256, is_url
from utils.core.errors import InputError, suggestion
from utils.core.files import read_yaml, wide_sign
from utils.core.names import counted

LOG = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
DATASET_FORMATS = ("yolo", "coco", "voc")  # that tools.convert writes
KNOWN_KEYS = ("path", *SPLITS, "nc", "names", "images", "difficult", "crowd", "kpt_shape", "download", "generate")
KEEP, DROP = "keep", "drop"
# Other words for a key: to pass them over would lose what they say.
_MEANT = {
    **dict.fromkeys(("classes", "class_names", "labels", "label_names"), "names"),
    **dict.fromkeys(("num_classes", "n_classes", "number_of_classes"), "nc"),
    **dict.fromkeys(("valid", "validation", "val_images"), "val"),
    **dict.fromkeys(("training", "train_images"), "train"),
    **dict.fromkeys(("testing", "test_images"), "test"),
}
_MISSPELT = 0.75
_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set as its yaml describes it. All paths are absolute; whether they exist is asked of ``sources``.

    Attributes:
        source: the yaml file.
        root: folder that relative splits refer to.
        train, val, test: image folders, image files or ``.txt`` lists of each split, COCO annotations (``.json``), or
            folders of VOC ``.xml`` files; empty where the yaml has none.
        nc: number of classes; ``names``: their names, ``len(names) == nc``. Without names in the yaml they are those
            of the first ``.json`` of a split.
        category_ids: where a split is a ``.json``, the category id of every class in it (-1: it has no such category),
            ``len(category_ids) == nc``; that of val before test before train. Empty otherwise, and where
            ``single_cls`` made one class of several.
        images: split -> folder with the images of COCO or VOC annotations, for the splits that the yaml says it of.
        drop_difficult: drop VOC objects marked as difficult.
        crowd: what to do with COCO annotations marked as crowds: "keep" their boxes, or "drop" them; None: drop them
            and take it for a loss, because some tools mark every mask so.
        keypoint_columns: how many numbers of key points follow the box in a row of a label file (``kpt_shape:``, as
            pose sets have it); only the box is used.
        generate: name of a built-in generator that makes the images, or None.
        download: where the images can be had; nothing is fetched or run from here (see utils/datasets/fetch.py).
        download_script: the text of ``download:`` when it is no address: what v6.1 would run to get the images.
        searched: the folders against which relative paths were tried, in this order.
    """

    source: Path
    root: Path
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]
    nc: int
    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    images: Mapping[str, Path] = field(default_factory=dict)
    drop_difficult: bool = False
    crowd: str | None = None
    keypoint_columns: int = 0
    generate: str | None = None
    download: tuple[RemoteFile, ...] = ()
    download_script: str | None = None
    searched: tuple[Path, ...] = ()

    @classmethod
    def load(cls, path: str | Path, single_cls: bool = False) -> DatasetSpec:
        """Read a data yaml, given by path or by its bare name in ``data``.

        ``path:`` is tried against the folder of the yaml, then against the working directory; so is every relative
        split when it is not there. With ``single_cls`` all classes count as one, called "item" as in v6.1 unless the
        set has only one class anyway.

        Raises:
            FileNotFoundError: no such yaml.
            InputError: misspelt key, class count and names at odds, no split; the message names the file and the key.
        """
        file = find_yaml(path, "data")
        content = read_yaml(file)
        if not isinstance(content, Mapping):
            hint = ", not 'key = value' as Darknet has it" if "=" in str(content) else ""
            raise InputError(f"{file}: expected 'key: value' lines such as train:, val: and names:{hint}")
        _check_keys(content, file)
        bases = _bases(content.get("path"), file)
        root = next((base for base in bases if base.is_dir()), bases[0])
        paths = {split: _split_paths(content.get(split), split, root, bases, file) for split in SPLITS}
        if not any(paths.values()):
            raise InputError(f"{file}: no images named; give at least one of train:, val:, test:")
        jsons = {split: [path for path in paths[split] if _is_coco(path)] for split in SPLITS}
        names = _class_names(content, file, [path for split in SPLITS for path in paths[split]])
        category_ids = _category_ids(jsons, names)
        if single_cls and len(names) != 1:
            names, category_ids = ("item",), ()
        remotes, script = _downloads(content.get("download"), file)
        return cls(
            source=file,
            root=root,
            train=paths["train"],
            val=paths["val"],
            test=paths["test"],
            nc=len(names),
            names=names,
            category_ids=category_ids,
            images=_image_folders(content.get("images"), root, bases, file),
            drop_difficult=_choice(content, "difficult", file) == DROP,
            crowd=_choice(content, "crowd", file),
            keypoint_columns=_keypoint_columns(content.get("kpt_shape"), file),
            generate=_text(content, "generate", file),
            download=remotes,
            download_script=script,
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
        if self.download:
            addresses = ", ".join(remote.url for remote in self.download)
            hint = f"; the set can be had from {addresses} (--download fetches it)"
        elif self.download_script:
            hint = "; 'download:' is a script, which runs only with --download --allow-scripts"
        elif os.name != "nt" and (drive := _DRIVE.search(str(path))):
            hint = f" with the place of the set on this machine ({drive[0]} is a drive of Windows)"
        places = ", ".join(map(str, tried))
        raise FileNotFoundError(
            f"{self.source}: {split} images not found; tried {places}; correct '{split}:' or 'path:'{hint}"
        )


def _check_keys(content: Mapping[Any, Any], file: Path) -> None:
    """Refuse keys that seem to mean one that the file lacks; others are ignored with a warning.

    Raises:
        InputError: such a key, with the one that is meant.
    """
    absent = [key for key in KNOWN_KEYS if key not in content]
    notes = []
    for key in (key for key in content if key not in KNOWN_KEYS and not str(key).startswith("x-")):
        word = str(key).lower()
        swapped = [known for known in absent if sorted(known) == sorted(word)]  # short words with two letters swapped
        meant = _MEANT.get(word, swapped[0] if swapped else "")
        hint = f"; did you mean '{meant}'?" if meant in absent else suggestion(word, absent, _MISSPELT)
        if wide := wide_sign(str(key)):
            hint = f"; {wide}"
        if hint:
            raise InputError(
                f"{file}: unknown key '{key}'{hint} (known: {', '.join(KNOWN_KEYS)}; notes of your own start with x-)"
            )
        notes.append(str(key))
    if notes:
        LOG.warning("%s: keys without a meaning here are passed over: %s", file, ", ".join(notes))


def _text(content: Mapping[Any, Any], key: str, file: Path) -> str | None:
    value = content.get(key)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{file}: {key}: {value!r} is not text")


def _downloads(entry: Any, file: Path) -> tuple[tuple[RemoteFile, ...], str | None]:
    """What ``download:`` holds: addresses (text, ``{url: ..., sha256: ...}``, or a list of these), or a script."""
    if isinstance(entry, str) and not all(map(is_url, entry.split())):
        return (), entry
    given = entry.split() if isinstance(entry, str) else entry if isinstance(entry, list) else [entry]
    remotes = []
    for item in given:
        values = {"url": item} if isinstance(item, str) else item
        if values is None and entry is None:
            continue
        if not isinstance(values, Mapping) or not isinstance(values.get("url"), str) or not is_url(values["url"]):
            raise InputError(f"{file}: download: {item!r} is neither an address nor url: with sha256:")
        if wrong := [key for key in values if key not in ("url", "sha256")]:
            raise InputError(f"{file}: download: unknown key '{wrong[0]}' (known: url, sha256)")
        digest = values.get("sha256")
        if digest is not None and not (isinstance(digest, str) and is_sha256(digest)):
            raise InputError(f"{file}: download: sha256: {digest!r} is not 64 hexadecimal digits; put it in quotes")
        remotes.append(RemoteFile(values["url"].strip(), digest))
    return tuple(remotes), None


def _is_coco(path: Path) -> bool:
    return path.suffix.lower() == ".json" and not is_labelme(path)


def _class_names(content: Mapping[Any, Any], file: Path, entries: Sequence[Path]) -> tuple[str, ...]:
    """Names from ``names:``, else of the first COCO or CVAT file of ``entries``, else class0 ... from ``nc:``."""
    nc, names = content.get("nc"), content.get("names")
    jsons = [path for path in entries if _is_coco(path)] if names is None else []
    if isinstance(nc, str) and nc.strip().isdecimal():
        nc = int(nc)
    if nc is not None and (isinstance(nc, bool) or not isinstance(nc, int) or nc < 1):
        raise InputError(f"{file}: nc: {nc!r} is not a whole number of at least 1")
    if jsons:
        if not jsons[0].is_file():
            raise FileNotFoundError(
                f"{file}: annotations not found: {jsons[0]}; correct 'path:', or give names: to do without them"
            )
        in_coco = read_categories(jsons[0]).without_unused_parents(jsons).class_names(jsons[0])
        if nc is not None and nc != len(in_coco):
            raise InputError(
                f"{file}: nc: {nc} but {jsons[0]} has {counted(len(in_coco), 'category')}; remove nc:, or give names:"
            )
        return in_coco
    if names is None:
        defined = next((cvat_names(path) for path in entries if path.suffix.lower() == ".xml" and is_cvat(path)), ())
        if defined and nc in (None, len(defined)):
            return defined
        if nc is None:
            raise InputError(f"{file}: no classes; give names: (a list of class names)")
        return tuple(f"class{i}" for i in range(nc))
    listed = parse_names(names, file)
    wide = "，" in listed[0] and len(listed) == 1
    if wide or nc not in (None, len(listed)):
        stated = f"nc: {nc} but " if nc not in (None, len(listed)) else ""
        cure = f"'{listed[0]}' has {wide_sign('，')}" if wide else "correct one of them or remove nc:"
        raise InputError(f"{file}: {stated}names: has {counted(len(listed), 'entry')}; {cure}")
    return listed


def parse_names(names: Any, file: Path) -> tuple[str, ...]:
    """Class names from the value of ``names:``: a list, a mapping from 0, or a file with a name in every line.

    Raises:
        InputError: it is none of these; names ``file``.
    """
    if isinstance(names, str) and Path(names).suffix.lower() in (".names", ".txt"):
        return read_name_list(file.parent / _path(names, "names", file))
    if isinstance(names, Mapping):
        if all(isinstance(key, str) and key.isdecimal() for key in names):
            names = {int(key): name for key, name in names.items()}  # '0': cat, as programs write that know JSON only
        if set(names) != set(range(len(names))):
            keys = ", ".join(map(str, names))
            raise InputError(
                f"{file}: names: the keys must be 0 to {len(names) - 1}, as classes are counted from 0; found {keys}"
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        wide = wide_sign(names) if isinstance(names, str) else ""
        cure = f"; it has {wide}" if wide else f"; write names: [{names}]" if isinstance(names, str) else ""
        raise InputError(f"{file}: names: {names!r} is not a list of class names{cure}")
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"{file}: names: class {i} is {name!r}, not text; give its name only, such as - cat")
    return tuple(names)


def read_name_list(file: Path) -> tuple[str, ...]:
    """Class names of a text file, one a line, as labelling tools write (``obj.names``, ``classes.txt``).

    Raises:
        FileNotFoundError, InputError: no such file, not UTF-8, or no line in it.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such list of class names") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8; save the list as UTF-8 text") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        raise InputError(f"{file}: expected a class name in every line")
    return tuple(lines)


def _category_ids(jsons: Mapping[str, Sequence[Path]], names: tuple[str, ...]) -> tuple[int, ...]:
    """Category ids of the classes in the json that results are scored against."""
    for path in (path for split in ("val", "test", "train") for path in jsons[split]):
        if path.is_file():
            return read_categories(path).ids_of(names)
    return ()


def _image_folders(entry: Any, root: Path, bases: tuple[Path, ...], file: Path) -> dict[str, Path]:
    """``images:`` for every split: one folder for all, or a mapping from split to folder."""
    if entry is None:
        return {}
    given = entry if isinstance(entry, Mapping) else dict.fromkeys(SPLITS, entry)
    for split, folder in given.items():
        if split not in SPLITS:
            raise InputError(f"{file}: images: unknown split '{split}'{suggestion(str(split), SPLITS)}")
        if not isinstance(folder, str) or not folder:
            raise InputError(f"{file}: images: {folder!r} is not a folder")
    return {split: _split_paths(folder, split, root, bases, file)[0] for split, folder in given.items()}


def _choice(content: Mapping[Any, Any], key: str, file: Path) -> str | None:
    """What a key says to do with objects of a kind: "keep" or "drop" them; None where it is not there."""
    entry = content.get(key)
    if entry is not None and entry not in (KEEP, DROP):
        raise InputError(f"{file}: {key}: {entry!r} is unknown; allowed is {KEEP} or {DROP}")
    return entry


def _keypoint_columns(entry: Any, file: Path) -> int:
    """Numbers of key points in a row: ``kpt_shape: [17, 3]`` stands for 17 points of x, y and visibility."""
    if entry is None:
        return 0
    if not (isinstance(entry, list) and len(entry) == 2 and all(type(n) is int and 0 < n < 10_000 for n in entry)):
        raise InputError(f"{file}: kpt_shape: {entry!r} is not [number of key points, numbers for each]")
    return int(entry[0] * entry[1])


def _path(text: str, key: str, file: Path) -> Path:
    """A path of the yaml, which may have been written on Windows."""
    text = text.strip()
    if any(ord(character) < ord(" ") for character in text):
        raise InputError(
            f"{file}: {key}: {text!r} has a line break, tab or the like, which is what \\n and \\t mean in "
            "double quotes; write the path in single quotes, or with /"
        )
    return Path(text.replace("\\", "/")).expanduser()


def _bases(given: Any, file: Path) -> tuple[Path, ...]:
    """Absolute folders that ``path:`` may mean, best first."""
    if given is not None and not isinstance(given, str):
        raise InputError(f"{file}: path: {given!r} is not text")
    relative = _path(given or "", "path", file)
    return tuple(dict.fromkeys((start / relative).resolve() for start in (file.parent, Path.cwd())))


def _split_paths(entry: Any, split: str, root: Path, bases: tuple[Path, ...], file: Path) -> tuple[Path, ...]:
    """Absolute paths of one split: where they exist, else where they should be.

    Either slash will do. ``../train/images`` is tried inside the yaml's folder as well: labelling services write it so
    and put the yaml beside the folder ``train``.
    """
    entries = entry if isinstance(entry, list) else [] if entry is None else [entry]
    paths = []
    for item in entries:
        if not isinstance(item, str) or not item:
            raise InputError(f"{file}: {split}: {item!r} is not a path; give one, or a plain list of them")
        path = _path(item, split, file)
        tried = [(base / path).resolve() for base in (root, *bases)]
        if path.parts[:1] == ("..",):  # labelling services write one folder too high
            tried.append((file.parent / Path(*path.parts[1:])).resolve())
        paths.append(next((place for place in tried if place.exists()), tried[0]))
    return tuple(paths)
