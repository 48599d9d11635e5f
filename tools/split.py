"""Part the images of a set into training, validation and test lists, or into folds for cross-validation.

    python -m tools.split --source images/images --fractions 0.8 0.1 0.1 --stratify --output images/split
    python -m tools.split --source my.yaml --kfold 5 --group-by '^(\\w+)_\\d+' --output folds

Writes ``train.txt``, ``val.txt``, ``test.txt`` and ``data.yaml`` (for folds ``fold0_train.txt`` ... and ``fold0.yaml``
...), and moves no image. The same seed gives the same lists. What must stay together does: images with the same
content, and with ``--group-by`` those whose names agree in the group of the pattern.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tools.options import SplitOptions
from utils.config.cli import answer_early, run_script

answer_early(SplitOptions, __name__)

import numpy as np

from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.core.errors import InputError
from utils.core.files import find_images, label_path_for, open_regular, write_atomic
from utils.core.names import counted
from utils.core.output import OutputFolder
from utils.core.yaml_names import dump_yaml
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.splits import load_labels
from utils.datasets.stratify import Units, assign

LOG = logging.getLogger(__name__)

_ANY_CLASS = 10_000  # more classes than a folder without a yaml will ever have
_YAML = (".yaml", ".yml")


# The images ---------------------------------------------------------------------------------------------------------


def read_source(options: SplitOptions) -> tuple[list[LabelRecord], tuple[str, ...]]:
    """Usable images of ``--source``, each once, and the names of the classes.

    Raises:
        FileNotFoundError, InputError: no images, classes without a name, or labels that are not .txt files.
    """
    if Path(options.source).suffix.lower() in _YAML:
        spec = DatasetSpec.load(options.source)
        names = options.names or spec.names
        if len(names) != spec.nc:
            raise InputError(
                f"--names has {counted(len(names), 'entry')}, {spec.source} {counted(spec.nc, 'class')}; correct one"
            )
        pooled = [split for split in options.pool if getattr(spec, split)]
        if not pooled:
            raise InputError(f"{spec.source}: none of the splits of --pool {' '.join(options.pool)} is there")
        records = [record for split in pooled for record in load_labels(spec, split).records]
    else:
        images = list(dict.fromkeys(find_images([options.source])))
        nc = len(options.names) or _ANY_CLASS
        records = scan_labels(images, nc, progress=True, description=options.source).records
        highest = max((int(r.boxes[:, 0].max()) for r in records if len(r.boxes)), default=0)
        names = options.names or tuple(f"class{i}" for i in range(highest + 1))
    for record in records:
        if record.label != label_path_for(record.image) and (record.label or len(record.boxes)):
            raise InputError(
                f"{record.image}: its labels are in {record.label}; lists of images need a .txt file for each: "
                f"convert the set first with python -m tools.convert --source {options.source} --to yolo"
            )
    if options.stratify and not any(len(record.boxes) for record in records):
        first = records[0].image
        raise InputError(f"--stratify: no image has a label; those of {first} would be in {label_path_for(first)}")
    unique = {os.path.normpath(record.image.absolute()): record for record in records}
    return [unique[key] for key in sorted(unique)], names


def same_content(images: Sequence[Path]) -> list[Hashable]:
    """A key per image, equal for files with the same bytes; only files of equal size are read."""
    sizes = [path.stat().st_size for path in images]
    images_of = Counter(sizes)

    def key(index: int) -> Hashable:
        alone = images_of[sizes[index]] == 1
        if alone:
            return index
        with open_regular(images[index]) as stream:
            return hashlib.sha256(stream.read()).digest()

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(key, range(len(images))))


def name_groups(images: Sequence[Path], pattern: str) -> list[Hashable]:
    """Group 1 of ``pattern`` in the file name of every image.

    Raises:
        InputError: not a regular expression, one without a group, or an image it does not match, which is named.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-by '{pattern}' is not a regular expression: {error}") from error
    if not expression.groups:
        raise InputError(f"--group-by '{pattern}' has no group; put the part that must agree in ( )")
    keys: list[Hashable] = []
    for image in images:
        match = expression.search(image.name)
        if match is None or match[1] is None:
            raise InputError(f"--group-by '{pattern}' does not match {image}; widen the pattern or rename the image")
        keys.append(match[1])
    return keys


def connected_groups(*keyings: Sequence[Hashable]) -> list[list[int]]:
    """Positions that belong together because some keying gives them the same key, directly or through others."""
    leader = list(range(len(keyings[0])))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = i = leader[leader[i]]
        return i

    for keys in keyings:
        first: dict[Hashable, int] = {}
        for i, key in enumerate(keys):
            leader[find(i)] = find(first.setdefault(key, i))
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(leader)):
        members[find(i)].append(i)
    return list(members.values())


def objects_per_class(records: Sequence[LabelRecord], nc: int) -> np.ndarray:
    """[images, nc] number of objects of every class."""
    return np.stack([np.bincount(record.boxes[:, 0].astype(int), minlength=nc) for record in records])


# The lists ------------------------------------------------------------------------------------------------------------


def split(records: Sequence[LabelRecord], nc: int, options: SplitOptions) -> dict[str, list[int]]:
    """Positions in ``records`` of every part, by its name.

    Raises:
        InputError: a part would be empty.
    """
    images = [record.image for record in records]
    keyings = [same_content(images)]
    if options.group_by:
        keyings.append(name_groups(images, options.group_by))
    groups = connected_groups(*keyings)
    if len(groups) < len(images):
        LOG.info("%d images in %s that stay together (copies, --group-by)", len(images), counted(len(groups), "group"))
    counts = objects_per_class(records, nc) if options.stratify else np.zeros((len(images), 0), int)
    if options.stratify:  # background is balanced like a class
        counts = np.column_stack([counts, counts.sum(1) == 0])
    units = Units(
        images=np.array([len(group) for group in groups]),
        objects=np.stack([counts[group].sum(0) for group in groups]),
    )
    chosen = assign(units, list(options.parts.values()), np.random.default_rng(options.seed))
    parts = {
        name: sorted(i for group, part in zip(groups, chosen) if part == number for i in group)
        for number, name in enumerate(options.parts)
    }
    for name, indices in parts.items():
        if not indices:
            kind = "groups of images" if len(groups) < len(images) else "images"
            raise InputError(
                f"{name} would be empty: there are {len(groups)} {kind} to share out; ask for fewer or larger parts"
            )
    return parts


def listed_path(image: Path, folder: Path) -> str:
    """``image`` relative to the list's folder, with ``/``; beginning with ``./``, which never means another folder.

    Raises:
        InputError: the labels of the image would not be found from there.
    """
    relative = Path(os.path.relpath(image, folder))
    if relative.parts[0] == ".." and "images" not in relative.parts and "images" in folder.parts:
        raise InputError(
            f"--output {folder} lies below a folder called images, so labels of {image} would be looked for in the "
            "wrong place; choose an output folder elsewhere"
        )
    return f"./{relative.as_posix()}"


def files_of(
    records: Sequence[LabelRecord], parts: dict[str, list[int]], names: Sequence[str], options: SplitOptions
) -> dict[Path, str]:
    """Content of every list and yaml by its path."""
    folder = Path(options.output).resolve()
    lines = [listed_path(record.image, folder) for record in records]
    lists: dict[str, dict[str, list[int]]] = {"data": parts}
    if options.kfold:
        everything = range(len(records))
        lists = {fold: {"train": sorted(set(everything) - set(val)), "val": val} for fold, val in parts.items()}
    files = {}
    for name, of_split in lists.items():
        prefix = f"{name}_" if options.kfold else ""
        content: dict[str, object] = {}
        for part, indices in of_split.items():
            files[folder / f"{prefix}{part}.txt"] = "".join(f"{lines[i]}\n" for i in indices)
            content[part] = f"{prefix}{part}.txt"
        content |= {"nc": len(names), "names": dict(enumerate(names))}
        files[folder / f"{name}.yaml"] = dump_yaml(content)
    return files


def write_split_files(files: dict[Path, str], options: SplitOptions) -> None:
    """Write all files; none when one of them is there already, without ``exist_ok``, or is read by ``source``."""
    taken = [path for path in files if path.exists()]
    if taken and not options.exist_ok:
        raise InputError(f"--output: {taken[0]} is there already; choose another folder, or replace it by --exist-ok")
    output = OutputFolder(Path(options.output).resolve(), partial(_inputs, options.source))
    for file in files:  # all of them before the first is written
        output.path(file.name)
    for file, text in files.items():
        write_atomic(file, text.encode())


def _inputs(source: str) -> Iterator[str | Path]:
    """The data yaml or list that is read, and the lists that the yaml names."""
    yield source
    if Path(source).suffix.lower() in _YAML:
        spec = DatasetSpec.load(source)
        yield from (spec.source, *(path for split in SPLITS for path in getattr(spec, split)))


def table(counts: np.ndarray, parts: dict[str, list[int]], names: Sequence[str]) -> str:
    """Images, and objects of every class, in every part, with the share of all of them; ``counts`` [images, nc]."""
    rows = [["", "all", *parts], ["images", str(len(counts)), *(_share(len(p), len(counts)) for p in parts.values())]]
    background = counts.sum(1) == 0
    rows.append(["  without objects", str(background.sum())])
    rows[-1] += [_share(background[indices].sum(), background.sum()) for indices in parts.values()]
    for c, name in enumerate(names):
        total = counts[:, c].sum()
        rows.append([name, str(total), *(_share(counts[indices, c].sum(), total) for indices in parts.values())])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(f"{cell:>{w}}" if i else f"{cell:<{w}}" for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    )


def _share(part: int, total: int) -> str:
    return f"{part} ({100 * part / total:.1f} %)" if total else f"{part}"


def main(options: SplitOptions) -> None:
    records, names = read_source(options)
    parts = split(records, len(names), options)
    files = files_of(records, parts, names, options)
    write_split_files(files, options)
    LOG.info("%s", table(objects_per_class(records, len(names)), parts, names))
    LOG.info("%s", "\n".join(str(path) for path in files if path.suffix == ".yaml"))


if __name__ == "__main__":
    sys.exit(run_script(main, SplitOptions))
