"""From a data set's description to its verified labels.

An entry of ``train:``, ``val:`` or ``test:`` may be of any kind, and the entries of one split of different kinds:

* a ``.json`` file: COCO detection annotations, or those of LabelMe for one image;
* a ``.xml`` file: annotations of CVAT for many images, or of VOC for one;
* a folder with ``.xml`` files or LabelMe ``.json`` files and no images, or a list of ids
  (``ImageSets/Main/train.txt``): VOC or LabelMe annotations;
* a folder with images, a ``.txt`` list of images, or an image: with YOLO label files, or, when not one of its
  images has a label file, with VOC or LabelMe annotations in ``Annotations`` or beside them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.config.categories import is_cvat, is_labelme
from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError, suggestion
from utils.core.files import find_images
from utils.datasets.digits import ensure_digits
from utils.datasets.formats.annotations import DROPPED_KINDS, NOTE
from utils.datasets.formats.coco_json import CocoLabels
from utils.datasets.formats.cvat_xml import CvatLabels
from utils.datasets.formats.labelme_json import LabelmeLabels
from utils.datasets.formats.named import NamedLabels
from utils.datasets.formats.voc_layout import (
    JSON,
    annotations_of,
    images_of_folder,
    images_of_list,
    read_ids,
    walk_files,
)
from utils.datasets.formats.voc_xml import VocLabels
from utils.datasets.labels.cache import cache_path_for
from utils.datasets.labels.records import Finding, LabelSet, ScanReport
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.yolo_text import RowReader, TextRows

LOG = logging.getLogger(__name__)
GENERATORS = {"digits": ensure_digits}

_SHOWN = 10


@dataclass(frozen=True)
class Part:
    """Images of a split whose labels are of one kind.

    ``sources`` are the entries they come from. ``strays`` are annotations that belong to no image.
    """

    images: list[Path]
    sources: tuple[Path, ...]
    reader: RowReader
    strays: tuple[Finding, ...] = field(default=())

    def cache_path(self, cache_dir: Path | None) -> Path:
        """Where the scan of this part is kept: for annotations beside their file or folder, unless moved elsewhere."""
        if isinstance(self.reader, TextRows):
            return cache_path_for(self.images, cache_dir, sources=self.sources)
        return _beside(self.sources[0], cache_dir)


def _beside(source: Path, cache_dir: Path | None, what: str = "") -> Path:
    """``train.json.cache`` beside ``train.json``; in ``cache_dir`` with a unique name."""
    source = source.absolute()
    if cache_dir is None:
        return source.with_name(f"{source.name}{what}.cache")
    return cache_dir / f"{source.name}-{hashlib.sha256(str(source).encode()).hexdigest()[:8]}{what}.cache"


def load_labels(
    spec: DatasetSpec,
    split: str,
    *,
    single_cls: bool = False,
    require_labels: bool = False,
    cache_dir: Path | None = None,
    workers: int = 8,
    strict: bool = True,
) -> LabelSet:
    """Images and verified labels of a split, sorted by path; an embedded set is composed first when it is not there.

    Args:
        spec: the data set.
        split: "train", "val" or "test".
        single_cls: all classes count as one.
        require_labels: a split without any usable label is an error.
        cache_dir: where the result is kept for the next start; None: beside the labels.
        workers: threads that read files.
        strict: objects of unknown classes, and images all unusable, are errors; otherwise they are only reported.

    Raises:
        FileNotFoundError: images are missing; every place tried is named.
        InputError: no such split, an annotation file that cannot be used, no usable image, unknown classes.
    """

    def listing(source: Path) -> Path:
        return _beside(source, cache_dir, ".images")

    parts = open_split(spec, split, single_cls=single_cls, strict=strict, listing=listing)
    sets = [
        scan_labels(
            part.images,
            spec.nc,
            cache_path=part.cache_path(cache_dir),
            workers=workers,
            progress=True,
            description=f"{split} labels",
            require_labels=require_labels and len(parts) == 1,
            single_cls=single_cls,
            strict=strict,
            reader=part.reader,
        )
        for part in parts
    ]
    labels = join(sets, parts)
    log_oddities(labels.report, parts, f"{split} labels")
    if require_labels and not (
        labels.report.labelled or labels.report.empty
    ):  # background only is pointed out, not refused
        raise InputError(f"{split} labels: no labels found in {', '.join(map(str, spec.sources(split)))}")
    return labels


def open_split(
    spec: DatasetSpec,
    split: str,
    *,
    single_cls: bool = False,
    strict: bool = True,
    listing: Callable[[Path], Path] | None = None,
) -> list[Part]:
    """The images of a split and the readers of their labels: all with label files first, then one part per entry.

    ``listing`` returns where the names of the images of a json are kept for the next start; None: nowhere.

    Raises:
        FileNotFoundError, InputError: as for ``load_labels``.
    """
    if spec.generate:
        if spec.generate not in GENERATORS:
            hint = suggestion(spec.generate, GENERATORS)
            raise InputError(f"{spec.source}: generate: '{spec.generate}' is not known{hint}; there is: digits")
        GENERATORS[spec.generate](spec.root)
    names = None if single_cls else spec.names
    folder = spec.images.get(split)
    plain: list[Path] = []
    images: list[Path] = []  # of ``plain``
    parts: list[Part] = []
    for entry in spec.sources(split):
        suffix = entry.suffix.lower()
        if suffix == ".xml" and is_cvat(entry):
            cvat = CvatLabels(entry, names, split=split, folder=folder, strict=strict)
            parts.append(Part(sorted(cvat.images, key=str), (entry,), cvat))
            continue
        if suffix == JSON and not is_labelme(entry):
            kept = listing(entry) if listing else None
            coco = CocoLabels(entry, names, split=split, folder=folder, strict=strict, crowd=spec.crowd, listing=kept)
            parts.append(Part(sorted(coco.images, key=str), (entry,), coco, coco.strays))
            continue
        entry_images = [] if suffix in (".xml", JSON) else _images(entry, (spec.root, *spec.searched))
        files = annotations_of(entry_images) if entry_images else _annotated(entry, folder)
        if files:
            reader: NamedLabels
            if any(file.suffix.lower() == JSON for file in files.values()):
                reader = LabelmeLabels(files, names, strict)
            else:
                reader = VocLabels(files, names, drop_difficult=spec.drop_difficult, strict=strict)
            parts.append(Part(sorted(reader.images, key=str), (entry,), reader))
        else:
            plain.append(entry)
            images += entry_images
    if plain:
        rows = TextRows(spec.keypoint_columns)
        parts.insert(0, Part(sorted(images, key=str) or find_images(plain), tuple(plain), rows))
    return parts


def _images(entry: Path, bases: Sequence[Path]) -> list[Path]:
    """The images that an entry holds or lists, if any."""
    try:
        return find_images([entry], bases)
    except FileNotFoundError:
        return []


def _annotated(entry: Path, images: Path | None) -> dict[Path, Path]:
    """Image -> xml or LabelMe file of an entry without images; empty when it has no annotations either."""
    if entry.is_dir():
        here = any(True for _ in walk_files(entry, ".xml")) or any(map(is_labelme, walk_files(entry, JSON)))
    else:
        here = entry.suffix.lower() in (".xml", JSON)
    if here:
        return images_of_folder(entry, images)
    ids = read_ids(entry)
    return images_of_list(entry, ids, images) if ids else {}


def join(sets: Sequence[LabelSet], parts: Sequence[Part]) -> LabelSet:
    """The label sets of the parts of a split as one, sorted by the paths of the images, with the strays reported."""
    strays = [finding for part in parts for finding in part.strays]
    if len(sets) == 1 and not strays:
        return sets[0]
    reports = [labels.report for labels in sets]
    counts = {name: sum(getattr(r, name) for r in reports) for name in ("labelled", "missing", "empty", "corrupt")}
    findings = [*strays, *(finding for report in reports for finding in report.findings)]
    records = sorted((record for labels in sets for record in labels.records), key=lambda record: str(record.image))
    return LabelSet(records, ScanReport(**counts, findings=tuple(findings)))


def log_oddities(report: ScanReport, parts: Sequence[Part], description: str) -> None:
    """Log what is special to annotation files: strays and notes as warnings, dropped objects as counts."""
    notes = [finding for part in parts for finding in part.strays]
    notes += [finding for finding in report.findings if finding.kind == NOTE]
    for finding in notes[:_SHOWN]:
        LOG.warning("%s: %s", description, finding)
    if len(notes) > _SHOWN:
        LOG.warning("%s: %d more notes of this kind", description, len(notes) - _SHOWN)
    counted = [f"{report.counts[kind]} {text}" for kind, text in DROPPED_KINDS.items() if report.counts[kind]]
    if counted:
        LOG.info("%s: %s", description, "; ".join(counted))
