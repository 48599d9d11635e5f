"""Writing label records as YOLO label files, as COCO annotations and as VOC annotations."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from utils.core.boxes import xywhn2xyxy
from utils.core.errors import InputError
from utils.core.files import write_atomic
from utils.core.output import OutputFolder
from utils.datasets.labels.records import LabelRecord

_NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_AGREE = 1e-4  # most by which the bounds of an outline may differ from the box that they replace


@dataclass(frozen=True)
class Layout:
    """Where the parts of one image go, relative to the output folder.

    ``image`` is its place when images are copied, ``label`` its annotation file, ``name`` what the annotations call
    the image: the file name in COCO's, the id in VOC's.
    """

    image: Path
    label: Path
    name: str


@dataclass(frozen=True)
class SplitPlan:
    """The records of one split, each with its places; ``root`` is the folder that holds all their images."""

    split: str
    root: Path
    entries: tuple[tuple[LabelRecord, Layout], ...]


# Names ----------------------------------------------------------------------------------------------------------------


def plan(splits: Mapping[str, Sequence[LabelRecord]], to: str) -> list[SplitPlan]:
    """Decide on the names of all files of a set in the format ``to``.

    Sub-folders of images are kept. VOC has one folder for all splits: there they appear only where two images would
    have one id.

    Raises:
        InputError: two images would share one annotation file.
    """
    roots = {split: _common_folder(records) for split, records in splits.items()}
    stems = Counter(record.image.stem for records in splits.values() for record in records)
    flat = max(stems.values(), default=0) <= 1
    plans = []
    owners: dict[str, Path] = {}
    for split, records in splits.items():
        entries = []
        for record in records:
            relative = record.image.relative_to(roots[split])
            layout = _layout(split, relative, to, flat)
            key = layout.name if to == "coco" else str(layout.label)
            other = owners.setdefault(f"{split}/{key}" if to == "coco" else key, record.image)
            if other != record.image:
                raise InputError(f"{other} and {record.image} would share {key}; rename one of them")
            entries.append((record, layout))
        plans.append(SplitPlan(split, roots[split], tuple(entries)))
    return plans


def _common_folder(records: Sequence[LabelRecord]) -> Path:
    return Path(os.path.commonpath([record.image.parent for record in records]))


def _layout(split: str, relative: Path, to: str, flat: bool) -> Layout:
    if to == "yolo":
        label = Path("labels", split, relative).with_suffix(".txt")
        return Layout(Path("images", split, relative), label, relative.as_posix())
    if to == "coco":
        annotations = Path("annotations", f"instances_{split}.json")
        return Layout(Path("images", split, relative), annotations, relative.as_posix())
    place = Path(relative.name) if flat else Path(split, relative)
    number = place.with_name(place.stem)
    label = Path("Annotations", number.parent, f"{number.name}.xml")
    return Layout(Path("JPEGImages", place), label, number.as_posix())


# Writing --------------------------------------------------------------------------------------------------------------


def check_names(names: Sequence[str], to: str) -> None:
    """Raise InputError: the name of a class cannot stand in a file of the format ``to``."""
    unfit = [f"{number} is {name!a}" for number, name in enumerate(names) if to == "voc" and _NOT_IN_XML.search(name)]
    if unfit:
        raise InputError(f"class {unfit[0]}: xml cannot hold such a character; correct the name, or give --names")


def write_labels(
    plans: Sequence[SplitPlan], to: str, output: OutputFolder, names: Sequence[str], ids: Sequence[int]
) -> int:
    """Write the annotations of all splits below ``output``.

    Args:
        plans: what goes where.
        to: one of ``DATASET_FORMATS``.
        output: the folder.
        names: the classes.
        ids: their category ids in COCO's format.

    Returns:
        Number of outlines that could not be kept: all in VOC's format, which has none; in YOLO's those whose bounds are
        not the box, because there a row is one or the other.
    """
    lost = 0
    for of_split in plans:
        if to == "coco":
            content = coco_content(of_split, names, ids)
            file = output.path(f"annotations/instances_{of_split.split}.json")
            _write(file, json.dumps(content, ensure_ascii=False))
            continue
        for record, layout in of_split.entries:
            if to == "yolo":
                rows, dropped = yolo_rows(record)
                lost += dropped
                _write(output.path(layout.label), "".join(f"{row}\n" for row in rows))
            else:
                lost += sum(len(outline) > 0 for outline in record.segments)
                _write(output.path(layout.label), voc_text(record, names))
        if to == "voc":
            listing = "".join(f"{layout.name}\n" for _, layout in of_split.entries)
            _write(output.path(f"ImageSets/Main/{of_split.split}.txt"), listing)
    return lost


def _write(file: Path, text: str) -> None:
    write_atomic(file, text.encode("utf-8"))


def _objects(record: LabelRecord) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Class, box [4] cx cy w h as fractions and outline [m, 2] as fractions, empty where there is none."""
    outlines = record.segments or [np.zeros((0, 2), np.float32)] * len(record.boxes)
    for row, outline in zip(record.boxes.astype(np.float64), outlines):
        yield int(row[0]), row[1:], outline.astype(np.float64)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def yolo_rows(record: LabelRecord) -> tuple[list[str], int]:
    """The rows of a label file, and how many outlines were given up for their box."""
    rows = []
    lost = 0
    for cls, box, outline in _objects(record):
        values = box
        if len(outline):
            low, high = outline.min(0), outline.max(0)
            bounds = np.concatenate([(low + high) / 2, high - low])
            if np.abs(bounds - box).max() <= _AGREE:
                values = outline.ravel()
            else:
                lost += 1
        rows.append(" ".join([str(cls), *(_number(value, 8) for value in values)]))
    return rows, lost


def coco_content(of_split: SplitPlan, names: Sequence[str], ids: Sequence[int]) -> dict[str, Any]:
    """COCO annotations of one split. Images called by a number keep it as their id, as in COCO itself."""
    stems = [record.image.stem for record, _ in of_split.entries]
    numbered = all(stem.isascii() and stem.isdigit() for stem in stems) and len({int(s) for s in stems}) == len(stems)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for place, (record, layout) in enumerate(of_split.entries, 1):
        height, width = record.hw
        number = int(record.image.stem) if numbered else place
        images.append({"id": number, "file_name": layout.name, "width": width, "height": height})
        for cls, box, outline in _objects(record):
            annotation = _coco_annotation(box * (width, height, width, height), outline * (width, height))
            head = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[cls]}
            annotations.append({**head, **annotation})
    categories = [{"id": number, "name": name} for number, name in zip(ids, names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _coco_annotation(xywh: np.ndarray, outline: np.ndarray) -> dict[str, Any]:
    """Box, area and outline in pixels."""
    cx, cy, width, height = xywh.tolist()
    area = width * height
    if len(outline):
        x, y = outline.T
        area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return {
        "bbox": [round(value, 4) for value in (cx - width / 2, cy - height / 2, width, height)],
        "area": round(area, 2),
        "iscrowd": 0,
        "segmentation": [[round(value, 4) for value in outline.ravel().tolist()]] if len(outline) else [],
    }


def voc_text(record: LabelRecord, names: Sequence[str]) -> str:
    """The VOC annotation of one image; corners with up to 4 decimals, so that nothing is lost."""
    height, width = record.hw
    root = ElementTree.Element("annotation")
    _add(root, folder=record.image.parent.name, filename=record.image.name)
    size = ElementTree.SubElement(root, "size")
    _add(size, width=str(width), height=str(height), depth="3")
    _add(root, segmented="0")
    for cls, box, _ in _objects(record):
        item = ElementTree.SubElement(root, "object")
        _add(item, name=names[cls], pose="Unspecified", truncated="0", difficult="0")
        corners = xywhn2xyxy(box[None], width, height)[0]
        corner_texts = (_number(float(value), 4) for value in corners)
        _add(ElementTree.SubElement(item, "bndbox"), **dict(zip(("xmin", "ymin", "xmax", "ymax"), corner_texts)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, **texts: str) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = text
