"""What is wrong with a data set, before anything is trained on it.

    python -m tools.check --data my.yaml
    python -m tools.check --data my.yaml --task val --decode

Reads all images and labels as training would and looks further: repeated images within and between the splits,
boxes too small to be learned, classes without boxes. The summary is printed; every finding with its file and line is in
``report.txt`` and ``report.json`` in ``runs/check/exp``, with plots of classes and boxes.

Exit code: 0 nothing is lost; 1 rows or images will not be used as they are meant, or splits share images; 2 the
options or the yaml are wrong.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.options import CheckOptions
from utils.config.cli import EXIT_USAGE, answer_early, run_script

answer_early(CheckOptions, __name__)

import numpy as np
from tqdm import tqdm

from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.files import increment_path, write_atomic
from utils.core.names import printable
from utils.core.output import OutputFolder
from utils.datasets.checks.findings import (
    DAMAGED,
    NO_SPLIT,
    box_findings,
    class_counts,
    file_findings,
    identity_findings,
    unused_classes,
)
from utils.datasets.checks.report import CheckReport, SplitSummary
from utils.datasets.formats.voc_layout import unread
from utils.datasets.labels.image_check import decode_all, identical_files
from utils.datasets.labels.records import Finding, LabelRecord
from utils.datasets.labels.splits import load_labels
from utils.plots.labels import plot_box_sizes, plot_labels

LOG = logging.getLogger(__name__)
PLOTS = ("labels", "sizes")  # of each split


def check(
    spec: DatasetSpec, splits: tuple[str, ...], options: CheckOptions
) -> tuple[CheckReport, dict[str, list[LabelRecord]]]:
    """Look at all images and labels of ``splits``; the report and the usable records of each split."""
    report = CheckReport(spec.source, options.imgsz, options.decode)
    usable: dict[str, list[LabelRecord]] = {}
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    for split in splits:
        try:
            labels = load_labels(
                spec,
                split,
                single_cls=options.single_cls,
                cache_dir=cache_dir,
                workers=options.workers,
                strict=False,
            )
        except (InputError, FileNotFoundError) as error:  # the other splits are still worth a look
            problem = str(error).removeprefix(f"{spec.source}: ")  # the finding names the file itself
            report.findings.append((split, Finding(NO_SPLIT, str(spec.source), problem=problem)))
            continue
        usable[split] = labels.records
        if split != "test" and labels.report.missing == len(labels.records) > 0:
            problem = f"no labels found{unread(labels.records[0].image)}"
            report.findings.append((split, Finding(NO_SPLIT, str(spec.source), problem=problem)))
        counts = class_counts(labels.records, spec.nc)
        by_name = {f"{i} {name}": int(count) for i, (name, count) in enumerate(zip(spec.names, counts))}
        report.splits[split] = SplitSummary.of(labels, by_name)
        report.findings += [(split, finding) for finding in labels.report.findings]
        report.findings += [(split, finding) for finding in file_findings(labels.records)]
        limit = None if options.single_cls else spec.nc
        for record in labels.records:
            odd = box_findings(record, options.imgsz, limit, spec.keypoint_columns)
            report.findings += [(split, finding) for finding in odd]
        if split == "train":
            report.findings += [(split, finding) for finding in unused_classes(counts, spec.names, spec.source)]
    if options.decode:
        report.findings += _damaged(usable, options.workers)
    images = [record.image for records in usable.values() for record in records]
    report.findings += identity_findings(usable, identical_files(images, options.workers))
    return report, usable


def _damaged(usable: dict[str, list[LabelRecord]], workers: int) -> Iterator[tuple[str, Finding]]:
    """Decode all images, those named twice once."""
    split_of = {record.image: split for split, records in usable.items() for record in records}
    problems = decode_all(list(split_of), workers)
    for (image, split), problem in zip(split_of.items(), tqdm(problems, "decode", len(split_of), leave=False)):
        if problem:
            yield split, Finding(DAMAGED, str(image), problem=problem, action="used as far as it can be decoded")


def write_report(
    report: CheckReport, usable: dict[str, list[LabelRecord]], names: tuple[str, ...], folder: Path
) -> None:
    """Write the report and, for each split, the plots of its boxes."""
    write_atomic(folder / "report.txt", printable(report.as_text(), keep="\n\t").encode())
    write_atomic(folder / "report.json", report.as_json().encode("utf-8", "surrogateescape"))
    for split, records in usable.items():
        if not records:
            continue
        plot_labels(np.concatenate([record.boxes for record in records]), names, folder / f"{split}_labels.png")
        sides = [r.boxes[:, 3:] * np.array(r.hw[::-1]) * (report.imgsz / max(r.hw)) for r in records]
        per_image = np.array([len(record.boxes) for record in records])
        plot_box_sizes(np.concatenate(sides), per_image, report.imgsz, folder / f"{split}_sizes.png")


def main(options: CheckOptions) -> int:
    try:
        spec = DatasetSpec.load(options.data, options.single_cls)
        missing = [split for split in options.task if not getattr(spec, split)]
        if missing:
            raise InputError(f"--task {missing[0]}: {spec.source} has no '{missing[0]}:' key")
    except (InputError, FileNotFoundError) as error:
        LOG.error("error: %s", error)
        return EXIT_USAGE
    splits = options.task or tuple(split for split in SPLITS if getattr(spec, split))
    report, usable = check(spec, splits, options)
    folder = Path(options.report or ROOT / "runs/check/exp")
    folder = increment_path(folder, exist_ok=bool(options.report), mkdir=True)
    images = [record.image for records in usable.values() for record in records]
    output = OutputFolder(
        folder, lambda: [spec.source, *(p for split in splits for p in getattr(spec, split)), *images]
    )
    for name in ("report.txt", "report.json", *(f"{split}_{plot}.png" for split in usable for plot in PLOTS)):
        output.path(name)  # all of them before the first is written
    write_report(report, usable, spec.names, folder)
    LOG.info("%s", "\n".join(report.summary_lines()))
    LOG.info("all findings with file and line: %s", folder / "report.txt")
    return int(report.grave)


if __name__ == "__main__":
    sys.exit(run_script(main, CheckOptions))
