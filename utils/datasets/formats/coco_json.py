"""COCO detection annotations (one json for all images) as labels.

What is used of the file: ``images`` (id, file_name, and width and height where given), ``annotations`` (image_id,
category_id, bbox in pixels, iscrowd, segmentation) and ``categories`` (id, name).

* Crowd annotations (``iscrowd: 1``) outline a group and not an object: they are dropped and counted. CVAT marks every
  mask so; ``crowd: keep`` in the data yaml makes them objects like others.
* The box is always ``bbox``. A polygon segmentation becomes the outline of the object; of several parts one outline is
  made (:func:`utils.datasets.formats.annotations.merge_outlines`). Run-length masks are not used.
* An image without annotations is background.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.categories import Categories, parse_categories, read_json, tool_of
from utils.config.dataset_spec import KEEP
from utils.core.errors import InputError, suggestion
from utils.core.files import collector_off
from utils.core.names import counted
from utils.datasets.formats.annotations import (
    CROWD,
    CROWD_AS_REQUESTED,
    MASK,
    NOTE,
    PixelObject,
    frame,
    is_crowd,
    merge_outlines,
    numbers,
    to_label_file,
)
from utils.datasets.labels.cache import fingerprint, load_cache, save_cache
from utils.datasets.labels.records import BAD_ROW, FOREIGN, Finding, LabelFile

LOG = logging.getLogger(__name__)

_SHOWN = 10
_DROPPED = "row dropped"
_SECTIONS = ("images", "annotations", "categories")


@dataclass
class _Image:
    """An entry of ``images`` and its annotations as they stand in the file."""

    name: str
    wh: tuple[float, float] | None
    annotations: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Content:
    """A parsed file: images in its order, and which class a category is (``classes`` None: all are class 0)."""

    images: list[_Image]
    categories: Categories
    classes: dict[int, int] | None
    strays: tuple[Finding, ...]

    def class_of(self, category: Any) -> int | None:
        """The class of a ``category_id``, None when it is none."""
        if self.classes is None:
            return 0
        return self.classes.get(category) if isinstance(category, int) else None


class CocoLabels:
    """The images of one annotation file, and their labels.

    Attributes:
        file: the json file.
        images: where the images lie, in the order of the file; one that is not there has the first place tried.
        tried: the folders in which the images were looked for.
        settings: what the labels depend on beside the file.
    """

    def __init__(
        self,
        file: Path,
        names: Sequence[str] | None,
        *,
        split: str = "",
        folder: Path | None = None,
        strict: bool = True,
        crowd: str | None = None,
        listing: Path | None = None,
    ) -> None:
        """Read and check the file.

        Args:
            file: the json file.
            names: the classes, matched with the names of the categories; None: everything is class 0.
            split: name of the split, tried as the name of a folder.
            folder: where the images are said to be; None: see :func:`image_folders`.
            strict: a category that ``names`` lacks is an error; otherwise such objects are dropped.
            crowd: "keep" or "drop" annotations marked as crowds; None: drop them, and report each as a loss.
            listing: where the names of the images are kept for the next start, so that a file that has not changed
                since, which may take a minute to parse, is parsed only when its labels are read.

        Raises:
            FileNotFoundError: the file or all of its images are missing.
            InputError: it is not json, or not laid out like COCO detection annotations.
        """
        self.file = file
        self.settings = f"coco 2 {None if names is None else list(names)} {strict} {crowd}"
        self._names = names
        self._strict = strict
        self._crowd = crowd
        self._lock = threading.Lock()
        self._content: _Content | None = None
        self.tried = image_folders(file, split, folder)
        known = _recall(listing, file, self.settings)
        if known is None:
            self._content = self._parse()  # before the images are looked for: a wrong file shows at once
            known = [entry.name for entry in self._content.images], self._content.strays
            _keep(listing, file, self.settings, *known)
        names_of_images, self.strays = known
        self._places = locate_images(names_of_images, self.tried, file)
        self.images = list(self._places)

    def _parse(self) -> _Content:
        """The checked content of the file."""
        with collector_off():
            sections = _sections(self.file)
            categories = parse_categories(sections["categories"], self.file)
            images = _images(sections["images"], self.file)
            strays = _assign(sections["annotations"], images, self.file)
            classes = None if self._names is None else categories.classes(self._names)
            content = _Content(list(images.values()), categories, classes, strays)
            if self._strict:
                self._refuse_unknown(content)
            return content

    def _parsed(self) -> _Content:
        """The content, read now if it has not been; threads may ask at the same time."""
        with self._lock:
            if self._content is None:
                self._content = self._parse()
            return self._content

    def file_for(self, image: Path) -> Path:
        """The json file, whichever the image."""
        return self.file

    def read(self, image: Path, hw: tuple[int, int], nc: int | None) -> LabelFile:
        """The labels of one of ``images``, whose height and width are ``hw``.

        Raises:
            UnreadableLabels: the file states another shape of the image.
        """
        content = self._parsed()
        entries = [content.images[place] for place in self._places[image]]
        size = frame(entries[0].wh, hw)
        findings: list[Finding] = []
        objects = []
        for annotation in (annotation for entry in entries for annotation in entry.annotations):
            value = f"annotation {_brief(annotation.get('id'))}"
            if self._is_dropped(annotation):
                kind = CROWD if self._crowd is None else CROWD_AS_REQUESTED
                findings.append(Finding(kind, str(self.file), 0, value, "", "dropped"))
                continue
            cls = content.class_of(annotation.get("category_id"))
            if cls is None:
                problem = self._foreign(annotation.get("category_id"), content.categories)
                findings.append(Finding(FOREIGN, str(self.file), 0, value, problem, _DROPPED))
                continue
            try:
                x, y, width, height = numbers(annotation.get("bbox"), 4)
            except ValueError as error:
                said = f"{value}: bbox {_brief(annotation.get('bbox'))}"
                findings.append(Finding(BAD_ROW, str(self.file), 0, said, str(error), _DROPPED))
                continue
            outline, finding = self._outline(annotation.get("segmentation"), value)
            findings += [] if finding is None else [finding]
            value = f"{value}: bbox {_brief(annotation['bbox'])}"
            objects.append(PixelObject(cls, 0, value, (x, y, x + width, y + height), outline))
        return to_label_file(self.file, objects, size, findings)

    def _is_dropped(self, annotation: Mapping[str, Any]) -> bool:
        """Whether it is a crowd, and those are not kept."""
        return self._crowd != KEEP and is_crowd(annotation)

    def _foreign(self, category: Any, categories: Categories) -> str:
        """What is wrong with a category that is no class."""
        names = [name for number, name in zip(categories.ids, categories.names) if number == category]
        if not names:
            quoted = " (text, where ids are numbers)" if isinstance(category, str) else ""
            return f"category_id {_brief(category)}{quoted} is not among the categories"
        hint = suggestion(names[0], self._names or ())
        return f"category {category} '{names[0]}' is not among the names of the data yaml{hint}"

    def _refuse_unknown(self, content: _Content) -> None:
        """Raise InputError that names the first annotations whose category is no class."""
        wrong = [
            annotation
            for entry in content.images
            for annotation in entry.annotations
            if content.class_of(annotation.get("category_id")) is None and not self._is_dropped(annotation)
        ]
        if not wrong:
            return
        first = wrong[0]
        others = ", ".join(f"{_brief(a.get('id'))}" for a in wrong[1:_SHOWN])
        more = f"; so do {len(wrong) - 1} more: {others}{' ...' * (len(wrong) > _SHOWN)}" if others else ""
        raise InputError(
            f"{self.file}: annotation {_brief(first.get('id'))} has an unknown class: "
            f"{self._foreign(first.get('category_id'), content.categories)}{more}; "
            "add the name to the yaml or correct the file"
        )

    def _outline(self, segmentation: Any, value: str) -> tuple[np.ndarray, Finding | None]:
        """The outline of an object in pixels, [0, 2] where there is none that can be used, and why not."""
        nothing = np.zeros((0, 2))
        if not segmentation:
            return nothing, None
        if isinstance(segmentation, Mapping):
            return nothing, Finding(MASK, str(self.file), 0, value, "run-length mask", "box used")
        flat = isinstance(segmentation, list) and isinstance(segmentation[0], (int, float))
        try:
            parts = [_polygon(part) for part in ([segmentation] if flat else list(segmentation))]
        except (TypeError, ValueError) as error:
            return nothing, Finding(NOTE, str(self.file), 0, f"{value}: segmentation", str(error), "box used")
        return merge_outlines(parts), None


def _polygon(values: Any) -> np.ndarray:
    """One part of a segmentation as points [k, 2]; ValueError says why it is none."""
    count = len(values)
    if not isinstance(values, list) or count < 6 or count % 2:
        raise ValueError(f"a polygon of {count} numbers, expected x y of 3 points or more")
    points = np.array(values)  # which is faster than looking at every number, and as good: anything else shows
    if points.dtype.kind not in "if" or points.ndim != 1 or not np.isfinite(points).all():
        numbers(values)  # says what is wrong
        raise ValueError("not a list of numbers")
    return points.reshape(-1, 2).astype(np.float64)


# Parts of the file ----------------------------------------------------------------------------------------------------


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _sections(file: Path) -> Mapping[str, Any]:
    content = read_json(file)
    expected = f"a COCO detection file has the lists {', '.join(_SECTIONS)}"
    if not isinstance(content, Mapping):
        raise InputError(f"{file}: not annotations; {expected}{tool_of(content)}")
    for name in _SECTIONS:
        if name not in content:
            hint = tool_of(content)
            raise InputError(f"{file}: no '{name}'{suggestion(name, map(str, content))}; {expected}{hint}")
        if not isinstance(content[name], list):
            raise InputError(f"{file}: '{name}' is not a list; {expected}")
    return content


def _images(entries: list[Any], file: Path) -> dict[Any, _Image]:
    """The images by their id."""
    if not entries:
        raise InputError(f"{file}: 'images' is empty: there is nothing to read")
    images: dict[Any, _Image] = {}
    for place, entry in enumerate(entries):
        here = f"{file}: images[{place}]"
        if not isinstance(entry, Mapping):
            raise InputError(f"{here} is {_brief(entry)}, not an object with id and file_name")
        number, name = entry.get("id"), entry.get("file_name")
        if isinstance(number, bool) or not isinstance(number, (int, str)):
            raise InputError(f"{here}: id {_brief(number)} is neither a number nor text")
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(f"{here} (id {_brief(number)}): file_name {_brief(name)} is not the name of a file")
        if number in images:
            raise InputError(f"{here}: id {_brief(number)} is taken by {images[number].name}")
        images[number] = _Image(name, _stated_size(entry, here))
    return images


def _stated_size(entry: Mapping[str, Any], here: str) -> tuple[float, float] | None:
    sides = [entry.get("width"), entry.get("height")]
    if not any(sides):
        return None
    try:
        width, height = numbers(sides, 2)
        if min(width, height) <= 0:
            raise ValueError("not above 0")
    except ValueError as error:
        raise InputError(f"{here}: width {_brief(sides[0])}, height {_brief(sides[1])}: {error}") from None
    return width, height


def _assign(entries: list[Any], images: Mapping[Any, _Image], file: Path) -> tuple[Finding, ...]:
    """Give every annotation to its image; what belongs to none is returned."""
    strays = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            problem = f"{_brief(entry)} is not an object with image_id, category_id and bbox"
            strays.append(Finding(BAD_ROW, str(file), 0, f"annotations[{place}]", problem, _DROPPED))
            continue
        owner = entry.get("image_id")
        known = isinstance(owner, (int, str)) and not isinstance(owner, bool)
        image = images.get(owner) if known else None
        if image is None:
            problem = f"image_id {_brief(owner)} is not among the images"
            value = f"annotation {_brief(entry.get('id', f'at place {place}'))}"
            strays.append(Finding(BAD_ROW, str(file), 0, value, problem, _DROPPED))
        else:
            image.annotations.append(entry)
    return tuple(strays)


# Where the images are -----------------------------------------------------------------------------------------------


def image_folders(file: Path, split: str = "", folder: Path | None = None) -> list[Path]:
    """The folders in which the images of an annotation file are looked for, in this order.

    For ``annotations/instances_val2017.json`` of the split ``val`` these are, after the folder of the json with its
    ``images`` and ``JPEGImages``, the folders ``val2017``, ``images/val2017``, ``val``, ``images/val``, ``images`` and
    ``JPEGImages`` beside ``annotations``. With ``folder`` given: that one, and in it those called like the split.
    """
    stem = file.stem
    names = list(dict.fromkeys([stem.partition("_")[2], stem, split]))
    names = [name for name in names if name]
    if folder is not None:
        return [folder, *(folder / name for name in names)]
    here, up = file.parent, file.parent.parent
    beside = [place / name for name in names for place in (up, up / "images")]
    inside = [here / "images" / name for name in names]
    plain = [place / name for place in (here, up) for name in ("images", "JPEGImages")]
    return [here, *inside, *plain[:2], *beside, *plain[2:], up]


def locate_images(names: Sequence[str], folders: Sequence[Path], file: Path) -> dict[Path, list[int]]:
    """Path -> places in ``names``: more than one for an image that is listed more than once."""
    present = [folder for folder in folders if folder.is_dir()]
    places_of: dict[Path, list[int]] = {}
    missing = []
    home = (present or folders)[0]  # where an image that is not there is said to be missing: beside the others
    for place, text in enumerate(names):
        name = Path(text.replace("\\", "/"))
        options = ((folder, folder / way) for way in dict.fromkeys((name, Path(name.name))) for folder in present)
        hit = next(((folder, option) for folder, option in options if option.is_file()), None)
        if hit is None:
            missing.append(text)
        home, path = hit or (home, home / name)
        others = places_of.setdefault(path, [])
        if others and names[others[0]] != text:
            raise InputError(f"{file}: '{names[others[0]]}' and '{text}' both lead to {path}; set 'images:' right")
        others.append(place)
    places = ", ".join(map(str, folders))
    if len(missing) == len(names):
        raise FileNotFoundError(
            f"{file}: none of its images found ({len(names)} of them), such as '{missing[0]}'; tried {places}; "
            "name the folder with 'images:' in the data yaml"
        )
    if missing:
        LOG.warning(
            "%s: %s not found, such as '%s'; tried %s", file, counted(len(missing), "image"), missing[0], places
        )
    repeated = [path for path, entries in places_of.items() if len(entries) > 1]
    if repeated:
        LOG.warning(
            "%s: %s listed more than once, such as '%s'; joined", file, counted(len(repeated), "image"), repeated[0]
        )
    return places_of


def _keep(listing: Path | None, file: Path, settings: str, names: list[str], strays: Sequence[Finding]) -> None:
    """Write down the names of the images, where that is wanted and possible."""
    if listing is None or (listing.parent.is_dir() and not os.access(listing.parent, os.W_OK)):
        return  # the cache of the labels goes to the same folder and says it
    content = {"names": names, "strays": [[s.value, s.problem] for s in strays]}
    save_cache(listing, fingerprint([str(file)], str(file.parent), settings), {}, content)


def _recall(listing: Path | None, file: Path, settings: str) -> tuple[list[str], tuple[Finding, ...]] | None:
    """What ``_keep`` wrote, as long as the file has not changed."""
    if listing is None:
        return None
    cached = load_cache(listing, fingerprint([str(file)], str(file.parent), settings))
    if cached is None:
        return None
    try:
        strays = (Finding(BAD_ROW, str(file), 0, value, problem, _DROPPED) for value, problem in cached[1]["strays"])
        return [str(name) for name in cached[1]["names"]], tuple(strays)
    except (KeyError, TypeError, ValueError):
        return None
