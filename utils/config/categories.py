"""The categories of a COCO annotation file: which numbers they have there, and which classes they become here."""

from __future__ import annotations

import json
import logging
import mmap
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.errors import InputError
from utils.core.files import collector_off, open_regular
from utils.core.xml_file import read_xml

LOG = logging.getLogger(__name__)

NO_CATEGORY = -1  # the category id of a class that the annotation file does not have
_KEY = b'"categories"'
_CATEGORY_ID = re.compile(rb'"category_id"\s*:\s*(\d+)\s*[,}]')
# Keys of the json files of other tools, in the file or in the first entry of its list.
_TOOLS: dict[str, tuple[set[str], ...]] = {
    "Label Studio": ({"data", "annotations"}, {"annotations", "file_upload"}, {"image", "label"}),
    "VIA": ({"_via_img_metadata"}, {"regions", "file_attributes"}),
    "Supervisely": ({"objects", "size"},),
    "Datumaro": ({"categories", "items"},),
    "CreateML": ({"image", "annotations"},),
    "Labelbox": ({"data_row"}, {"Labeled Data"}),
}
_TAG_WITHIN = 4096  # bytes within which the outermost tag of an xml file stands
_FIRST_BYTES = 1 << 20  # behind the key: no list of categories is longer, or it is read the slow way


@dataclass(frozen=True)
class Categories:
    """Categories of one annotation file in ascending order of their ids: ``len(ids) == len(names) == len(parents)``.

    ``parents`` are their supercategories, "" where there is none.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    parents: tuple[str, ...]

    def classes(self, names: Sequence[str]) -> dict[int, int]:
        """Category id -> position in ``names``; categories with a name that is not there are dropped."""
        position = {name: i for i, name in reversed(list(enumerate(names)))}
        return {number: position[name] for number, name in zip(self.ids, self.names) if name in position}

    def without_unused_parents(self, files: Sequence[Path]) -> Categories:
        """Without the categories that are only the supercategory of others, as Roboflow puts one before the classes.

        Such a category has no supercategory but itself, and no annotation of ``files``. Merged files have several.
        What is dropped is logged.
        """
        rows = list(zip(self.ids, self.names, self.parents))
        below = Counter(self.parents)
        tops = {
            number
            for number, name, parent in rows
            if parent in ("", name) and below[name] > (1 if parent == name else 0)
        }
        tops -= _used_categories(files) if tops else set()
        if not tops or len(tops) == len(rows):
            return self
        dropped = ", ".join(f"{number} '{name}'" for number, name, _ in rows if number in tops)
        LOG.info("%s: dropped as only the supercategory of others: category %s; 'names:' keeps it", files[0], dropped)
        ids, names, parents = zip(*(row for row in rows if row[0] not in tops))
        return Categories(ids, names, parents)

    def ids_of(self, names: Sequence[str]) -> tuple[int, ...]:
        """The id of every class in ``names``; ``NO_CATEGORY`` for one that the annotation file does not have."""
        rows = sorted(zip(self.ids, self.names, self.parents), reverse=True)
        rows.sort(key=lambda row: row[1] == row[2])  # a class called like its supercategory goes before that
        number = {name: i for i, name, _ in rows}
        return tuple(number.get(name, NO_CATEGORY) for name in names)

    def class_names(self, file: Path) -> tuple[str, ...]:
        """The names as classes 0, 1, ...; InputError when two categories share one."""
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            ids = [str(number) for number, name in zip(self.ids, self.names) if name == twice[0]]
            raise InputError(
                f"{file}: categories {' and '.join(ids)} are both called '{twice[0]}'; rename one of them, or give "
                "names: in the data yaml, which makes them one class"
            )
        return self.names


def read_json(file: Path) -> Any:
    """The content of a json file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not json; names file and line.
    """
    try:
        with collector_off(), open_regular(file) as stream:
            return json.loads(stream.read())
    except FileNotFoundError:
        raise FileNotFoundError(f"{file}: no such file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        ended = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string")
        cause = "the file ends too early; was it copied completely?" if ended else error.msg
        raise InputError(f"{file}:{error.lineno}: not valid json: {cause} (column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a tower of brackets
        raise InputError(f"{file}: not a usable json file ({error})") from error


def parse_categories(content: Any, file: Path) -> Categories:
    """The checked value of the key ``categories``.

    Raises:
        InputError: it is not a list of objects with a whole ``id`` and a ``name``, or an id comes twice.
    """
    if not isinstance(content, list) or not content:
        raise InputError(f"{file}: 'categories' is not a list of classes with id and name")
    entries: dict[int, tuple[str, str]] = {}
    for place, item in enumerate(content):
        if not isinstance(item, Mapping):
            raise InputError(f"{file}: categories[{place}] is {_short(item)}, not an object with id and name")
        number, name = item.get("id"), item.get("name")
        if isinstance(number, bool) or not isinstance(number, int):
            raise InputError(f"{file}: categories[{place}]: id {_short(number)} is not a whole number")
        if not isinstance(name, str) or not name:
            raise InputError(f"{file}: categories[{place}] (id {_short(number)}): name {_short(name)} is not text")
        if number in entries:
            raise InputError(f"{file}: categories[{place}]: id {number} is taken by '{entries[number][0]}'")
        parent = item.get("supercategory")
        entries[number] = name, parent if isinstance(parent, str) and parent.lower() != "none" else ""
    ids = tuple(sorted(entries))
    return Categories(ids, tuple(entries[number][0] for number in ids), tuple(entries[number][1] for number in ids))


def read_categories(file: Path) -> Categories:
    """The categories of an annotation file, which is not parsed as a whole where that can be avoided.

    The other parts of such a file may be hundreds of megabytes. Where the key occurs once and its value reads as
    categories, nothing else is read.

    Raises:
        FileNotFoundError, InputError: the file is missing, not json, or has no usable categories.
    """
    try:
        with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = content.find(_KEY)
            alone = place >= 0 and content.find(_KEY, place + 1) < 0
            text = content[place + len(_KEY) : place + _FIRST_BYTES].decode("utf-8", "replace") if alone else ""
    except (OSError, ValueError):  # ValueError: an empty file
        return _of_whole_file(file)  # which knows the cause
    colon, bracket, rest = text.partition("[")
    if not bracket or colon.strip() != ":":
        return _of_whole_file(file)
    try:
        entries, _ = json.JSONDecoder().raw_decode(bracket + rest)
    except (ValueError, RecursionError):
        return _of_whole_file(file)
    return parse_categories(entries, file)


def tool_of(content: Any) -> str:
    """What to do about the json file of another labelling tool: "; it is ...", "" for an unknown tool."""
    first = content[0] if isinstance(content, list) and content else content
    keys = first.keys() if isinstance(first, Mapping) else ()
    for tool, marks in _TOOLS.items():
        if any(mark <= set(keys) for mark in marks):
            return f"; it is an export of {tool}: export as COCO or YOLO there"
    return ""


def is_labelme(file: Path) -> bool:
    """Whether a json file is one of LabelMe, which belongs to one image. Of a COCO file only the bytes are searched."""
    try:
        with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # The search of a COCO file ends where its annotations begin: such a file may have half a gigabyte.
            return all(content.find(key) < 0 for key in (b'"annotations"', _KEY)) and content.find(b'"shapes"') >= 0
    except (OSError, ValueError):  # not there, or empty
        return False


def is_cvat(file: Path) -> bool:
    """Whether an xml file is one of CVAT, for many images; one of VOC has the tag ``annotation``."""
    try:
        with open_regular(file) as stream:
            return re.search(rb"<annotations[\s>]", stream.read(_TAG_WITHIN)) is not None
    except OSError:
        return False


def cvat_names(file: Path) -> tuple[str, ...]:
    """The labels that a file of CVAT defines, in their order; those of the parts of a skeleton are none.

    Raises:
        OSError, InputError: it cannot be read.
    """
    entries = []
    pending = [read_xml(file, until="image")]
    while pending:
        element = pending.pop(0)
        if element.tag == "label" and element.value("name") and element.child("parent") is None:
            entries.append(element.value("name") or "")
        pending += element.children
    return tuple(dict.fromkeys(entries))


def split_of_subset(subset: str) -> str:
    """The split that a subset of CVAT is: "train", "val" or "test"; "" for another name."""
    word = subset.strip().lower()
    return next((split for split in ("train", "val", "test") if word.startswith(split)), "")


def _used_categories(files: Sequence[Path]) -> set[int]:
    """The ids of the categories that have an annotation in one of the files."""
    used: set[int] = set()
    for file in files:
        try:
            with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                used |= {int(text) for text in {match[1] for match in _CATEGORY_ID.finditer(content)}}
        except (OSError, ValueError):  # not there, or empty
            continue
    return used


def _of_whole_file(file: Path) -> Categories:
    content = read_json(file)
    if not isinstance(content, Mapping) or "categories" not in content:
        problem = "a list, as detections are stored" if isinstance(content, list) else "no 'categories'"
        raise InputError(
            f"{file}: {problem}; a COCO annotation file has images, annotations and categories{tool_of(content)}"
        )
    return parse_categories(content["categories"], file)


def _short(value: Any) -> str:
    """A value for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."
