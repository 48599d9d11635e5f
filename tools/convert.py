"""Turn a labelled set into another format: YOLO label files, COCO or VOC annotations; LabelMe and CVAT are read too.

    python -m tools.convert --source instances_val2017.json --to yolo --output coco-yolo --link
    python -m tools.convert --source data.yaml --to coco --output my-coco
    python -m tools.convert --source VOCdevkit/VOC2012 --to yolo --output voc --names names.yaml --copy-images

The source is a data yaml (all of its splits), COCO annotations (``.json``), CVAT annotations (``.xml``, its subsets are
the splits), a folder of images with LabelMe files, a folder with VOC's ``Annotations`` (its
``ImageSets/Main/train.txt``, ``val.txt`` and ``test.txt`` are the splits), a folder of xml files, a folder with
``images/train``, ``images/val`` ..., or a folder or list of images. What training would not use is dropped here too.

Outlines go from YOLO to COCO and back; VOC has none, so boxes are written. Training does not need this command: a data
yaml may name COCO and VOC annotations as they are.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tools.options import ConvertOptions
from utils.config.cli import answer_early, run_script

answer_early(ConvertOptions, __name__)

from tqdm import tqdm

from utils.config.categories import NO_CATEGORY, cvat_names, is_cvat, is_labelme, read_categories
from utils.config.dataset_spec import SPLITS, DatasetSpec, parse_names, read_name_list
from utils.core.errors import InputError
from utils.core.files import read_yaml, without_dots, write_atomic
from utils.core.names import counted, printable
from utils.core.output import OutputFolder
from utils.core.yaml_names import dump_yaml
from utils.datasets.formats.annotations import DROPPED_KINDS
from utils.datasets.formats.cvat_xml import read_cvat
from utils.datasets.formats.named import NamedLabels
from utils.datasets.formats.voc_layout import ANNOTATIONS
from utils.datasets.formats.writing import SplitPlan, check_names, plan, write_labels
from utils.datasets.labels.records import LOSSES, REPEATED, LabelRecord, LabelSet
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.splits import join, log_oddities, open_split

LOG = logging.getLogger(__name__)

REPORT = "convert.txt"


# The source -----------------------------------------------------------------------------------------------------------


def read_names(file: str | Path) -> tuple[str, ...]:
    """Class names of a yaml with ``names:`` (list, or mapping from 0), such as a data yaml, or of a list of names.

    Raises:
        FileNotFoundError, InputError: there is no such file, or it has no such list.
    """
    if Path(file).suffix.lower() in (".names", ".txt"):
        return read_name_list(Path(file).expanduser())
    content = read_yaml(file)
    names = content.get("names") if isinstance(content, Mapping) else content
    if names is None:
        raise InputError(f"{file}: no names: with a list of class names")
    return parse_names(names, Path(file))


def source_dataset(options: ConvertOptions) -> DatasetSpec:
    """The source as a data set.

    Raises:
        FileNotFoundError, InputError: it is missing, is nothing that can be converted, or its classes are unknown.
    """
    source = Path(options.source).expanduser()
    names = read_names(options.names) if options.names else ()
    if source.suffix.lower() in (".yaml", ".yml"):
        spec = DatasetSpec.load(source)
        if names and len(names) != spec.nc:
            raise InputError(f"--names {options.names} has {counted(len(names), 'name')}, {source} {spec.nc}")
        return spec if not names or names == spec.names else replace(spec, names=names, category_ids=())
    if not source.exists():
        raise FileNotFoundError(f"--source {source}: no such file or folder")
    source = source.resolve()
    ids: tuple[int, ...] = ()
    if source.suffix.lower() == ".json" and not is_labelme(source):
        categories = read_categories(source).without_unused_parents([source])
        names = names or categories.class_names(source)
        ids = categories.ids_of(names)
    splits = _splits_of(source)
    root = source if source.is_dir() else source.parent
    spec = DatasetSpec(
        source=source,
        root=root,
        train=splits.get("train", ()),
        val=splits.get("val", ()),
        test=splits.get("test", ()),
        nc=len(names),
        names=names,
        category_ids=ids,
        images=dict.fromkeys(SPLITS, Path(options.images).expanduser().resolve()) if options.images else {},
        searched=(root,),
    )
    if not names:
        names = _names_in_files(spec)
    return replace(spec, nc=len(names), names=names)


def _splits_of(source: Path) -> dict[str, tuple[Path, ...]]:
    """The entries of every split that a file or folder holds."""
    if source.is_dir():
        for places in ("ImageSets/Main/{}.txt", "images/{}", "{}/images"):
            located = {split: source / places.format(split) for split in SPLITS}
            located = {split: path for split, path in located.items() if path.exists()}
            if located and (not places.startswith("Image") or (source / ANNOTATIONS).is_dir()):
                return {split: (path,) for split, path in located.items()}
        if (source / ANNOTATIONS).is_dir():
            return {"train": (source / ANNOTATIONS,)}
    if source.suffix.lower() == ".xml" and is_cvat(source):
        splits = {split for split, _ in read_cvat(source) if split}
        if splits:
            return {split: (source,) for split in SPLITS if split in splits}
    named = [split for split in ("val", "test") if split in source.stem.lower()]
    return {named[0] if named else "train": (source,)}


def _names_in_files(spec: DatasetSpec) -> tuple[str, ...]:
    """The labels that a CVAT file defines, else the names in all annotation files of a set, sorted.

    Raises:
        InputError: not all of its labels have names, or nothing has.
    """
    if spec.source.suffix.lower() == ".xml" and is_cvat(spec.source) and (defined := cvat_names(spec.source)):
        return defined
    located: set[str] = set()
    for part in (part for split in SPLITS if getattr(spec, split) for part in open_split(spec, split, strict=False)):
        if not isinstance(part.reader, NamedLabels):
            raise InputError(
                f"--source {spec.source}: label files have no class names; give --names with a yaml of them"
            )
        located |= set(part.reader.all_names())
    if not located:
        raise InputError(
            f"--source {spec.source}: no object has a name; give --names with a yaml that lists the classes"
        )
    return tuple(sorted(located))


def read_splits(spec: DatasetSpec) -> dict[str, LabelSet]:
    """The labels of all splits, each image once. Nothing is cached: the source is left as it is.

    Raises:
        FileNotFoundError, InputError: as for :func:`utils.datasets.labels.splits.load_labels`.
    """
    located = {}
    for split in (split for split in SPLITS if getattr(spec, split)):
        parts = open_split(spec, split)
        sets = [
            scan_labels(part.images, spec.nc, progress=True, description=f"{split} labels", reader=part.reader)
            for part in parts
        ]
        labels = join(sets, parts)
        log_oddities(labels.report, parts, f"{split} labels")
        whole = [replace(record, image=without_dots(record.image.absolute())) for record in labels.records]
        once = {record.image: record for record in whole}
        located[split] = LabelSet(list(once.values()), labels.report)
    return located


# The output -----------------------------------------------------------------------------------------------------------


def place_images(plans: Sequence[SplitPlan], output: OutputFolder, link: bool) -> None:
    """Copy the images below ``output``, or link to them; where links are not allowed they are copied."""
    pairs = [(record.image, layout.image) for of_split in plans for record, layout in of_split.entries]
    for image, place in tqdm(pairs, desc="images", leave=False, dynamic_ncols=True):
        target = output.folder / place
        if target.exists() and target.samefile(image):
            continue
        if target.is_symlink() and output.path(place.parent / "a"):  # a link of an earlier conversion, and not its end
            target.unlink()
        target = output.path(place)
        target.unlink(missing_ok=True)
        if link:
            with suppress(OSError):
                target.symlink_to(image.resolve())
                continue
        shutil.copyfile(image, target)


def data_yaml(plans: Sequence[SplitPlan], to: str, names: Sequence[str], placed: bool) -> str:
    """The text of a data yaml for the output; ``placed`` says that the images are in it as well."""
    entries = {"yolo": "images/{}", "coco": "annotations/instances_{}.json", "voc": "ImageSets/Main/{}.txt"}
    content: dict[str, Any] = {of_split.split: entries[to].format(of_split.split) for of_split in plans}
    if to != "yolo" and not placed:
        content["images"] = {of_split.split: str(of_split.root) for of_split in plans}
    content["names"] = list(names)
    return dump_yaml(content)


def report_text(splits: Mapping[str, LabelSet], names: Sequence[str], lost: int) -> str:
    """Counts of every split and class, and one line for everything that was not taken over."""
    lines = []
    losses = []
    for split, labels in splits.items():
        records = labels.records
        counts = Counter(int(cls) for record in records for cls in record.boxes[:, 0])
        outlines = sum(len(outline) > 0 for record in records for outline in record.segments)
        background = sum(len(record.boxes) == 0 for record in records)
        lines.append(
            f"{split}: {counted(len(records), 'image')} ({background} without objects), "
            f"{counted(counts.total(), 'box')} of {counted(len(counts), 'class')}, {counted(outlines, 'outline')}"
        )
        lines += [f"    {name}: {counts[cls]}" for cls, name in enumerate(names) if counts[cls]]
        kinds = labels.report.counts
        if kinds:
            lines.append(f"    findings: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
        lost_kinds = (*LOSSES, REPEATED, *DROPPED_KINDS)
        reasons = [finding for finding in labels.report.findings if finding.kind in lost_kinds]
        losses += [f"{split}: {finding.kind}: {finding}" for finding in reasons]
    if lost:
        lines.append(f"{counted(lost, 'outline')} could not be kept: boxes are written instead")
    return "\n".join([*lines, f"not taken over: {len(losses)}", *(f"    {loss}" for loss in losses)]) + "\n"


def _inputs(
    spec: DatasetSpec, options: ConvertOptions, records: Mapping[str, Sequence[LabelRecord]]
) -> Iterator[str | Path]:
    """The files that are read."""
    yield from (spec.source, options.names, *(path for split in SPLITS for path in getattr(spec, split)))
    for record in (record for of_split in records.values() for record in of_split):
        yield from (record.image, record.label or record.image)


def convert(options: ConvertOptions) -> Path:
    """Read the source, write the output; returns its data yaml. Nothing is written when the source has errors.

    Raises:
        FileNotFoundError, InputError: the source cannot be read, or the output folder is in use.
    """
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not options.exist_ok:
        raise InputError(f"--output {folder}: has files in it; choose another folder, or --exist-ok to write over them")
    spec = source_dataset(options)
    check_names(spec.names, options.to)
    splits = {split: labels for split, labels in read_splits(spec).items() if labels.records}
    records: dict[str, list[LabelRecord]] = {split: labels.records for split, labels in splits.items()}
    plans = plan(records, options.to)
    own_ids = spec.category_ids if spec.category_ids and NO_CATEGORY not in spec.category_ids else ()
    placed = options.copy_images or options.link
    output = OutputFolder(folder, partial(_inputs, spec, options, records))
    if placed:
        place_images(plans, output, options.link)
    lost = write_labels(plans, options.to, output, spec.names, own_ids or range(1, spec.nc + 1))
    text = report_text(splits, spec.names, lost)
    file = output.path("data.yaml")
    write_atomic(file, data_yaml(plans, options.to, spec.names, placed).encode("utf-8"))
    write_atomic(output.path(REPORT), printable(text, keep="\n").encode("utf-8"))
    for line in text.splitlines():
        if not line.startswith(" "):  # the counts of every class and the reasons are in the file
            LOG.info("%s", line)
    if options.to == "yolo" and not placed:
        LOG.info("the images belong into %s; --copy-images or --link puts them there", folder / "images")
    return file


def main(options: ConvertOptions) -> None:
    LOG.info("written: %s; all that was dropped is in %s", convert(options), REPORT)


if __name__ == "__main__":
    sys.exit(run_script(main, ConvertOptions))
