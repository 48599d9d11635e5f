"""v6.1's tools around data sets, for other people's scripts; ``tools.check`` and ``split`` do more."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.core.boxes import xywhn2xyxy
from utils.core.errors import InputError, first_line
from utils.core.files import find_images, increment_path, label_path_for
from utils.core.image import read_image, write_image
from utils.datasets.dataset_labels import load_labels
from utils.datasets.image_verify import check_image
from utils.datasets.label_file import MAX_CLASS, read_label_file
from utils.datasets.label_records import LabelRecord
from utils.plots.crops import crop_box

LOG = logging.getLogger(__name__)

_CROP_GAIN, _CROP_PAD = 1.2, 3.0
_HUB_SIDE = 1920  # longest side of the images of ``dataset_stats(hub=True)``


def get_hash(paths: Iterable[str | Path]) -> str:
    """A hash over the names of files and their sizes, by which a changed list of files can be told."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        size = path.stat().st_size if path.exists() else -1
        digest.update(f"{size} {path}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def exif_transpose(image: Image.Image) -> Image.Image:
    """The image turned upright by its EXIF orientation, which is then gone from it."""
    return ImageOps.exif_transpose(image)


def create_folder(path: str | Path = "./new") -> None:
    """An empty folder. What is at that place is removed, unless it contains the working directory.

    Raises:
        InputError: the working directory is that folder or inside it.
    """
    folder = Path(path).resolve()
    if Path.cwd().is_relative_to(folder):
        raise InputError(f"{folder}: holds the working directory and is not emptied; give another folder")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def flatten_recursive(path: str | Path = "../datasets/coco128") -> None:
    """Copy all files below a folder into a single one beside it, ``<name>_flat``.

    Raises:
        InputError: two files of one name, which could not both be there.
    """
    source = Path(path)
    target = source.with_name(f"{source.name}_flat")
    names: dict[str, Path] = {}
    for file in sorted(found for found in source.rglob("*") if found.is_file()):
        if file.name in names:
            raise InputError(f"{file}: there is {names[file.name]} as well, and one folder holds one of a name")
        names[file.name] = file
    create_folder(target)
    for name, file in names.items():
        shutil.copyfile(file, target / name)


def extract_boxes(path: str | Path = "../datasets/coco128") -> None:
    """Cut every labelled object below a folder out, into ``classifier/<class>/<image>_<number>.jpg`` in it.

    Raises:
        FileNotFoundError: no images there.
    """
    folder = Path(path)
    target = folder / "classifier"
    if target.is_dir():
        for path in target.rglob("*"):
            if not path.is_dir() and re.fullmatch(r"\d+/.*_\d+\.jpg", path.relative_to(target).as_posix()) is None:
                raise InputError(f"{target}: holds {path.name}, which was not cut out here; move it away")
        shutil.rmtree(target)
    for file in find_images([folder]):
        image = read_image(file)
        height, width = image.shape[:2]
        label = label_path_for(file)
        if not label.is_file():
            continue
        rows = read_label_file(label, (height, width), None).boxes
        corners = xywhn2xyxy(rows[:, 1:], width, height)
        for number, (kind, box) in enumerate(zip(rows[:, 0].astype(int).tolist(), corners.tolist())):
            part = crop_box(image, box, _CROP_GAIN, _CROP_PAD)
            if part.size:
                place = target / str(kind) / f"{file.stem}_{number}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                write_image(increment_path(place), np.ascontiguousarray(part))  # images of one name


def autosplit(
    path: str | Path = "../datasets/coco128/images",
    weights: Sequence[float] = (0.9, 0.1, 0.0),
    annotated_only: bool = False,
) -> None:
    """Deal the images of a folder out at random: ``autosplit_train.txt``, ``_val`` and ``_test`` beside it.

    The same images give the same lists. ``python -m tools.split`` keeps classes even and copies together.

    Args:
        weights: shares of the three lists. annotated_only: leave out images without a label file.

    Raises:
        FileNotFoundError: no images there.
    """
    folder = Path(path)
    images = find_images([folder])
    if annotated_only:
        images = [image for image in images if label_path_for(image).exists()]
    lists: list[list[str]] = [[], [], []]
    for image in images:
        number = random.Random(f"0 {image.relative_to(folder)}").choices((0, 1, 2), weights)[0]
        lists[number].append("./" + image.relative_to(folder.parent).as_posix() + "\n")
    for split, lines in zip(SPLITS, lists, strict=True):
        file = folder.parent / f"autosplit_{split}.txt"
        if lines:
            file.write_text("".join(lines), encoding="utf-8")
        else:
            file.unlink(missing_ok=True)


def verify_image_label(args: tuple[str, str, str]) -> tuple[Any, ...]:
    """Check one image and its label file.

    Args:
        args: image, label file, prefix of the message.

    Returns:
        Image (None if it cannot be used), boxes [n, 5] class and xywh as fractions, (width, height), polygons; how
        many label files are missing, found, empty, how many images are unusable (each 0 or 1); a message.
    """
    image, label, prefix = args
    try:
        hw = check_image(Path(image))
        rows = read_label_file(Path(label), hw, MAX_CLASS)
    except FileNotFoundError as error:
        if Path(image).is_file():
            return image, np.zeros((0, 5), np.float32), hw[::-1], [], 1, 0, 0, 0, ""
        return None, None, None, None, 0, 0, 0, 1, f"{prefix}{first_line(error)}"
    except Exception as error:  # decoders fail in many ways
        return None, None, None, None, 0, 0, 0, 1, f"{prefix}{image}: {first_line(error)}"
    empty = int(not len(rows.boxes))
    message = "; ".join(map(str, rows.findings))
    return image, rows.boxes, hw[::-1], list(rows.segments), 0, 1, empty, 0, f"{prefix}{message}" if message else ""


def dataset_stats(
    path: str | Path = "coco128.yaml",
    autodownload: bool = False,
    verbose: bool = False,
    profile: bool = False,
    hub: bool = False,
) -> dict[str, Any]:
    """Counts of a data set: ``nc``, ``names``, and for each split instances and images per class, and all labels.

    Args:
        path: data yaml.
        autodownload, profile: without effect.
        verbose: log the result.
        hub: write it to ``stats.json``, and smaller images, into ``<folder of the set>-hub``.

    Raises:
        FileNotFoundError, InputError: the yaml or its images cannot be used.
    """
    spec = DatasetSpec.load(path)
    stats: dict[str, Any] = {"nc": spec.nc, "names": list(spec.names)}
    target = spec.root.with_name(f"{spec.root.name}-hub")
    for split in SPLITS:
        if not getattr(spec, split):
            stats[split] = None
            continue
        records = load_labels(spec, split).records
        stats[split] = _counts(records, spec.nc)
        for record in records if hub else ():
            _write_smaller(record.image, target / "images" / split)
    if hub:
        target.mkdir(parents=True, exist_ok=True)
        (target / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    if verbose:
        LOG.info(json.dumps(stats, indent=2))
    return stats


def _counts(records: Sequence[LabelRecord], nc: int) -> dict[str, Any]:
    counts = np.array([np.bincount(r.boxes[:, 0].astype(int), minlength=nc) for r in records]).reshape(-1, nc)
    return {
        "instance_stats": {"total": int(counts.sum()), "per_class": counts.sum(0).tolist()},
        "image_stats": {
            "total": len(records),
            "unlabelled": int((counts.sum(1) == 0).sum()),
            "per_class": (counts > 0).sum(0).tolist(),
        },
        "labels": [{record.image.name: _rounded(record.boxes)} for record in records],
    }


def _rounded(boxes: np.ndarray) -> list[list[float]]:
    return [[int(row[0]), *(round(float(value), 4) for value in row[1:])] for row in boxes]


def _write_smaller(image: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(image) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
        upright.thumbnail((_HUB_SIDE, _HUB_SIDE))
        upright.save(folder / f"{image.stem}.jpg", quality=75)
