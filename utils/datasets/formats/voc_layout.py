"""Where the images of VOC and LabelMe annotations lie, and the annotations of images.

Understood are VOC's own layout (``Annotations/*.xml``, ``JPEGImages``, lists of ids in ``ImageSets/Main``), the same
with a folder ``images`` for the images, both with sub-folders, and xml files beside the images. The json files of
LabelMe may lie in the same places, or in ``labels`` for images in ``images``.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from utils.config.categories import is_cvat, is_labelme, read_categories
from utils.core.errors import InputError
from utils.core.files import IMAGE_SUFFIXES, find_images, label_path_for
from utils.core.names import counted
from utils.datasets.formats.labelme_json import stated_image
from utils.datasets.formats.voc_xml import read_voc

LOG = logging.getLogger(__name__)

ANNOTATIONS = "Annotations"
JSON = ".json"
IMAGES = ("JPEGImages", "images")
_NEAR, _MOST_READ = 3, 20  # folders upwards, and files in each, that are searched for annotations of other kinds
_LEVELS = 4  # folders above a list of ids in which "Annotations" is looked for


# What an entry of a data yaml is --------------------------------------------------------------------------------------


def walk_files(folder: Path, suffix: str) -> Iterator[Path]:
    """The files of one suffix in a folder at any depth, sorted; names that start with a dot are skipped."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(parent, name)


def read_ids(path: Path) -> list[str]:
    """The ids of a list in ``ImageSets``; empty for a ``.txt`` that lists images or is no text.

    Lists of one class have a flag (1, 0 or -1) behind each id, which means nothing here.
    """
    if path.suffix.lower() != ".txt" or not path.is_file():
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        return []
    lines = [line.replace("\\", "/") for line in lines if line]
    if any(Path(line).suffix.lower() in IMAGE_SUFFIXES for line in lines):
        return []
    return [_without_flag(line) for line in lines]


def _without_flag(line: str) -> str:
    words = line.rsplit(maxsplit=1)
    return words[0] if len(words) == 2 and words[1] in ("1", "0", "-1") else line


def annotation_of(image: Path, suffix: str = ".xml") -> Path:
    """The file of an image: that in ``Annotations``, in the same sub-folder or in none, or beside the image.

    When there is none, the first place that was searched.
    """
    places = []
    folders = list(image.parent.parts)
    for i in reversed(range(len(folders))):
        if folders[i] in IMAGES:
            root = Path(*folders[:i], ANNOTATIONS)
            places += [root.joinpath(*folders[i + 1 :]), root]
            break
    if suffix == JSON:
        places.append(label_path_for(image).parent)
    places = [place / f"{image.stem}{suffix}" for place in [*places, image.parent]]
    return next((place for place in places if place.is_file()), places[0])


def annotations_of(images: Sequence[Path]) -> dict[Path, Path]:
    """Image -> xml or LabelMe file, when these images have such; empty when they have label files."""
    if any(label_path_for(image).is_file() for image in images):
        return {}
    for suffix in (".xml", JSON):
        files = {image: annotation_of(image, suffix) for image in images}
        first = next((file for file in files.values() if file.is_file()), None)
        if first is not None and (suffix != JSON or any(map(is_labelme, files.values()))):
            return files
    return {}


def unread(image: Path) -> str:
    """What to do about an annotation file near an image without labels: "; there is ...", "" when there is none."""
    for folder in list(image.parents)[:_NEAR]:
        try:
            files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".xml", JSON, ".csv"))
        except OSError:
            continue
        for file in files[:_MOST_READ]:
            suffix = file.suffix.lower()
            if suffix == ".csv":
                return f"; there is {file}: tables are not read, export as YOLO, COCO or VOC"
            if suffix == ".xml" and is_cvat(file):
                return f"; there is {file} of CVAT: name it in the data yaml in place of the folder"
            if suffix == JSON and not is_labelme(file):
                with suppress(OSError, InputError):
                    read_categories(file)
                    return f"; there is {file} of COCO: name it in the data yaml in place of the folder"
    return ""


# From annotations to images -----------------------------------------------------------------------------------------


class _Images:
    """All images of some folders, found by sub-folder and name, or by name alone."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self._by_place: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for folder in folders:
            if not folder.is_dir():
                continue
            try:
                images = find_images([folder])
            except FileNotFoundError:
                continue
            for image in images:
                self._by_place[image.relative_to(folder).with_suffix("").as_posix()].append(image)
                self._by_stem[image.stem].append(image)

    def find(self, number: str, annotation: Path) -> Path | None:
        """The image of an id, which may have sub-folders (``train/0001``); InputError when several are meant."""
        fitting = self._by_place.get(number) or self._by_stem.get(number.rpartition("/")[2], [])
        if not fitting:
            return self._by_stated_name(annotation)
        if len(fitting) > 1:
            raise InputError(
                f"{annotation}: the image may be {fitting[0]} or {fitting[1]}; name its folder with 'images:' in the "
                "data yaml, or give the annotations the same sub-folders"
            )
        return fitting[0]

    def _by_stated_name(self, annotation: Path) -> Path | None:
        """The image that the annotation itself names."""
        if annotation.suffix.lower() == JSON:
            name = Path(stated_image(annotation))
            if name.name and (annotation.parent / name).is_file():
                return Path(os.path.normpath(annotation.parent / name))
        else:
            try:
                name = Path(read_voc(annotation).filename.replace("\\", "/"))
            except (OSError, InputError):
                return None
        fitting = [path for path in self._by_stem.get(name.stem, []) if path.name == name.name]
        return fitting[0] if len(fitting) == 1 else None


def images_of_folder(folder: Path, images: Path | None = None) -> dict[Path, Path]:
    """Image -> xml file for all xml files of a folder (or for one); the same for LabelMe files if there are no xml.

    Args:
        folder: ``Annotations``, a folder in it, or a single file.
        images: where the images are said to be; None: ``JPEGImages`` and ``images`` beside ``Annotations``.

    Raises:
        FileNotFoundError: not one image is there; every folder tried is named.
        InputError: two images cannot be distinguished.
    """
    files = [folder]
    if folder.is_dir():
        files = list(walk_files(folder, ".xml")) or list(filter(is_labelme, walk_files(folder, JSON)))
    top = folder if folder.is_dir() else folder.parent
    top = next((parent for parent in (top, *top.parents) if parent.name == ANNOTATIONS), top)
    numbers = {file.relative_to(top).with_suffix("").as_posix(): file for file in files}
    return _match(numbers, _folders(top.parent, images, top), folder)


def images_of_list(listing: Path, ids: Sequence[str], images: Path | None = None) -> dict[Path, Path]:
    """Image -> xml file for the ids of a list, whose ``Annotations`` lie in a folder above it.

    Raises:
        FileNotFoundError: there is no such folder, or not one image; every folder tried is named.
        InputError: two images cannot be distinguished.
    """
    roots = list(listing.parents)[:_LEVELS]
    root = next((parent for parent in roots if (parent / ANNOTATIONS).is_dir()), None)
    if root is None:
        places = ", ".join(str(parent / ANNOTATIONS) for parent in roots)
        raise FileNotFoundError(
            f"{listing}: neither a list of images (no line ends in .jpg, .png ...) nor one of ids with "
            f"annotations; tried {places}"
        )
    numbers = {number: root / ANNOTATIONS / f"{number}.xml" for number in dict.fromkeys(ids)}
    return _match(numbers, _folders(root, images, root / ANNOTATIONS), listing)


def _folders(root: Path, images: Path | None, annotations: Path) -> list[Path]:
    return [*(root / name for name in IMAGES), annotations] if images is None else [images]


def _match(numbers: dict[str, Path], folders: Sequence[Path], source: Path) -> dict[Path, Path]:
    """Image -> annotation for ids; an image that is not there gets the place where it should be."""
    all_images = _Images(folders)
    matches: dict[Path, Path] = {}
    missing = []
    default = next((folder for folder in folders if folder.is_dir()), folders[0])
    for number, file in numbers.items():
        image = all_images.find(number, file)
        if image is None:
            missing.append(number)
            image = default / f"{number}.jpg"
        if image in matches:
            raise InputError(f"{file}: belongs to the image {image}, as {matches[image]} does")
        matches[image] = file
    places = ", ".join(map(str, folders))
    if len(missing) == len(matches):
        raise FileNotFoundError(
            f"{source}: none of its images found ({len(matches)} of them), such as '{missing[0]}'; tried {places}; "
            "name the folder with 'images:' in the data yaml"
        )
    if missing:
        LOG.warning(
            "%s: %s not found, such as '%s'; tried %s", source, counted(len(missing), "image"), missing[0], places
        )
    return matches
