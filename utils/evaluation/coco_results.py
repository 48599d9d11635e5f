"""Detections with the image and category ids of a COCO annotation file, and COCO's metrics for them.

Images are found in the file by name. Without a file, one is made from the labels.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from utils.config.categories import NO_CATEGORY, is_labelme, parse_categories, read_json
from utils.config.dataset_spec import DatasetSpec
from utils.core.boxes import xywh2xyxy
from utils.core.errors import InputError
from utils.core.names import counted
from utils.datasets.formats.annotations import is_crowd, numbers
from utils.datasets.labels.records import LabelRecord
from utils.evaluation.evaluator import Observer
from utils.evaluation.results import ImageResult
from utils.metrics.coco import CocoMetrics, compute_coco_metrics

LOG = logging.getLogger(__name__)
_BOX_DECIMALS, _SCORE_DECIMALS = 3, 5  # in the results file, from which the metrics are computed


@dataclass(frozen=True)
class GroundTruth:
    """The objects and ids of an annotation file.

    Attributes:
        image_ids: path of each image -> its id, without images that the file lacks.
        category_ids: of each class; ``NO_CATEGORY`` if the file has none.
        boxes: [m, 8] for :func:`utils.metrics.coco.compute_coco_metrics`; images by their position in ``image_ids``.
        scales: path -> width and height of the image in the file divided by those on disk, where they differ.
        content: the annotation file, when it was made from the labels.
    """

    image_ids: dict[str, int | str]
    category_ids: tuple[int, ...]
    boxes: np.ndarray
    scales: dict[str, tuple[float, float]]
    content: dict[str, Any] | None = None


def find_annotations(spec: DatasetSpec, split: str) -> Path | None:
    """Find the annotation file of a split: the split itself, or ``annotations/instances_<name>.json`` as in COCO.

    ``<name>`` is the folder or list of images (``val2017``), and ``annotations`` lies in the folder of the set.
    """
    sources = spec.sources(split)
    if len(sources) != 1:
        return None
    if sources[0].suffix.lower() == ".json" and not is_labelme(sources[0]):
        return sources[0]
    name = sources[0].stem if sources[0].is_file() else sources[0].name
    file = spec.root / "annotations" / f"instances_{name}.json"
    return file if file.is_file() else None


def read_ground_truth(
    file: Path, records: Sequence[LabelRecord], names: Sequence[str], *, keep_crowds: bool = False
) -> GroundTruth:
    """Read the objects of an annotation file in the images of ``records``, of the classes ``names``.

    With ``keep_crowds``, annotations marked as crowds are ordinary objects.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a COCO annotation file, or it has none of the images or of the classes.
    """
    content = read_json(file)
    if not isinstance(content, Mapping) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise InputError(f"{file}: expected a COCO annotation file with images, annotations and categories")
    categories = parse_categories(content.get("categories"), file)
    category_ids = categories.ids_of(names)
    unknown = [name for name, number in zip(names, category_ids) if number == NO_CATEGORY]
    if len(unknown) == len(names):
        raise InputError(f"{file}: none of its categories is called like a class of the data set ('{names[0]}', ...)")
    if unknown:
        LOG.warning("%s: no category '%s' (%d such classes): not scored", file, unknown[0], len(unknown))
    listed = _entries_of(content["images"], records, file)
    entries = {path: same[0] for path, same in listed.items()}
    place = {entry["id"]: number for number, same in enumerate(listed.values()) for entry in same}
    class_of = categories.classes(names)
    rows = []
    for number, item in enumerate(content["annotations"]):
        try:
            image, kind = place.get(item["image_id"]), class_of.get(item["category_id"])
            if image is not None and kind is not None:
                x, y, width, height = numbers(item["bbox"], 4)
                (area,) = numbers([item.get("area", width * height)])
                crowd = is_crowd(item) and not keep_crowds
                rows.append((image, kind, x, y, width, height, area, float(crowd)))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{file}: annotations[{number}]: image_id, category_id and a bbox of 4 numbers expected ({error})"
            ) from error
    ids = {path: entry["id"] for path, entry in entries.items()}
    return GroundTruth(ids, category_ids, np.array(rows).reshape(-1, 8), _scales(entries, records))


def _scales(entries: Mapping[str, Mapping[str, Any]], records: Sequence[LabelRecord]) -> dict[str, tuple[float, float]]:
    """Return path -> width and height of an image in the file divided by those on disk, where they differ."""
    scales = {}
    for record in records:
        entry, (height, width) = entries.get(str(record.image), {}), record.hw
        stated = entry.get("width"), entry.get("height")
        if all(isinstance(side, (int, float)) and side > 0 for side in stated) and stated != (width, height):
            scales[str(record.image)] = (float(stated[0] or 0) / width, float(stated[1] or 0) / height)
    return scales


def _entries_of(images: list[Any], records: Sequence[LabelRecord], file: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Return the entries of each image by its path.

    ``file_name`` of an entry is compared with the end of the path, else only the names are compared. Several entries
    with one ``file_name`` are the same image, which has the objects of all.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    by_bare_name: dict[str, set[str]] = {}
    for number, entry in enumerate(images):
        if not isinstance(entry, Mapping) or not {"id", "file_name"} <= entry.keys() or _is_list(entry["id"]):
            raise InputError(f"{file}: images[{number}]: an id and a file_name expected")
        name = PurePosixPath(str(entry["file_name"]).replace("\\", "/"))
        by_name.setdefault(str(name), []).append(entry)
        by_bare_name.setdefault(name.name, set()).add(str(name))
    matches = {}
    for record in records:
        parts = record.image.as_posix().split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))  # the longest first
        known = next((tail for tail in tails if tail in by_name), None)
        if known is None and len(others := by_bare_name.get(parts[-1], set())) == 1:
            (known,) = others
        if known is not None:
            matches[str(record.image)] = by_name[known]
    if not matches:
        raise InputError(
            f"{file}: no image of {len(records)} is among its own, such as {records[0].image.name}; "
            "--annotations names another file"
        )
    owners: dict[int, str] = {}
    for path, (entry, *_) in matches.items():
        if (other := owners.setdefault(id(entry), path)) != path:
            raise InputError(
                f"{file}: its image '{entry['file_name']}' is {other} as well as {path}; give file_name with the folder"
            )
    missing = {str(record.image): record.image for record in records if str(record.image) not in matches}
    if missing:
        first = next(iter(missing.values()))
        LOG.warning("%s: lacks %s, such as %s: not scored", file, counted(len(missing), "image"), first.name)
    return matches


def ground_truth_from_labels(records: Sequence[LabelRecord], names: Sequence[str]) -> GroundTruth:
    """Make an annotation file from the labels; the area of an object is that of its box.

    Image ids are the names of the images if these are different numbers, as in COCO, else numbers from 1; category ids
    are class indices.
    """
    records = list({record.image: record for record in records}.values())  # a list may name an image twice
    stems = [record.image.stem for record in records]
    by_stem = all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems)
    image_ids = [int(stem) for stem in stems] if by_stem else list(range(1, len(stems) + 1))
    images, annotations, rows = [], [], []
    for place, (record, number) in enumerate(zip(records, image_ids)):
        height, width = record.hw
        images.append({"id": number, "file_name": record.image.name, "width": width, "height": height})
        corners = xywh2xyxy(record.boxes[:, 1:].astype(np.float64)) * (width, height, width, height)
        for kind, (x1, y1, x2, y2) in zip(record.boxes[:, 0].astype(int).tolist(), corners.tolist()):
            box = [round(value, _BOX_DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1)]
            area = round(box[2] * box[3], _BOX_DECIMALS)
            rows.append((place, kind, *box, area, 0))
            annotations.append(
                {"id": len(rows), "image_id": number, "category_id": kind, "bbox": box, "area": area, "iscrowd": 0}
            )
    categories = [{"id": kind, "name": name} for kind, name in enumerate(names)]
    ids: dict[str, int | str] = {str(record.image): number for record, number in zip(records, image_ids)}
    content = {"images": images, "annotations": annotations, "categories": categories}
    return GroundTruth(ids, tuple(range(len(names))), np.array(rows, np.float64).reshape(-1, 8), {}, content)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, dict))


def rounded_rows(detections: np.ndarray) -> np.ndarray:
    """Convert [k, 6] corners, confidence, class to rounded [k, 5] left, top, width, height, confidence."""
    corner, opposite, confidence = detections[:, :2], detections[:, 2:4], detections[:, 4:5]
    box = np.concatenate([corner, opposite - corner], 1).round(_BOX_DECIMALS)
    return np.concatenate([box, confidence.round(_SCORE_DECIMALS)], 1)


def result_entry(image_id: int | str, category_id: int, row: Sequence[float]) -> dict[str, Any]:
    """Return a detection of a results file, from a row of :func:`rounded_rows`."""
    return {"image_id": image_id, "category_id": category_id, "bbox": list(row[:4]), "score": row[4]}


class CocoResults(Observer):
    """Collects the detections of an evaluation for ``--save-json``."""

    def __init__(self, ground_truth: GroundTruth) -> None:
        self.ground_truth = ground_truth
        self._place = {path: number for number, path in enumerate(ground_truth.image_ids)}
        self._rows = [np.zeros((0, 7))]  # image, class, xywh, confidence: rounded
        self._seen: set[int] = set()

    def on_image(self, result: ImageResult) -> None:
        """Add the detections of an image that is in the annotation file, once if the data set has it twice."""
        place = self._place.get(result.path)
        if place is None or place in self._seen:
            return
        self._seen.add(place)
        rows = result.detections.numpy().astype(np.float64)  # [k, 6]
        rows = rows[np.array(self.ground_truth.category_ids)[rows[:, 5].astype(int)] != NO_CATEGORY]
        rows[:, :4] *= self.ground_truth.scales.get(result.path, (1.0, 1.0)) * 2
        image = np.full((len(rows), 1), place)
        self._rows.append(np.concatenate([image, rows[:, 5:], rounded_rows(rows)], 1))

    def write(self, file: Path) -> int:
        """Write COCO results (image_id, category_id, bbox, score), one per line; return their number."""
        ids, rows = list(self.ground_truth.image_ids.values()), np.concatenate(self._rows).tolist()
        with file.open("w", encoding="utf-8") as stream:
            stream.write("[")
            for number, (place, kind, *row) in enumerate(rows):
                entry = result_entry(ids[int(place)], self.ground_truth.category_ids[int(kind)], row)
                stream.write((",\n" if number else "\n") + json.dumps(entry))
            stream.write("\n]\n")
        return len(rows)

    def metrics(self) -> CocoMetrics:
        """Compute COCO's metrics; raises ImportError when no COCO evaluator is installed."""
        rows, classes = np.concatenate(self._rows), len(self.ground_truth.category_ids)
        return compute_coco_metrics(self.ground_truth.boxes, rows, len(self._place), classes)
