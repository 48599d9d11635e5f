"""Look at training images as the network will see them, and at the same images without augmentation.

    python -m tools.preview --data my.yaml --hyp data/hyps/hyp.scratch-high.yaml --n 16 --output runs/preview

Writes ``augmented.jpg`` and ``plain.jpg``: boxes with class names, the same image in the same place of both. In a
mosaic the file named below an image is the one it was drawn for; three others are around it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tools.options import PreviewOptions
from utils.config.cli import answer_early, run_script

answer_early(PreviewOptions, __name__)

import numpy as np

from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.sizes import check_img_size
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.output import OutputFolder
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import collate
from utils.plots.batches import plot_batch

LOG = logging.getLogger(__name__)

AUGMENTED, PLAIN = "augmented.jpg", "plain.jpg"
_MAX_SIDE = 3840  # pixels of a grid, so that labels can be read when there are many images


def choose(size: int, n: int, seed: int) -> list[tuple[int, int]]:
    """``n`` keys (epoch, index) of a set of ``size`` images, all of one epoch before the next begins."""
    rng = np.random.default_rng(seed)
    drawn: list[tuple[int, int]] = []
    for epoch in range(-(-n // size)):
        drawn += [(epoch, int(index)) for index in rng.permutation(size)]
    return drawn[:n]


def draw(
    records: list[LabelRecord], names: tuple[str, ...], hyp: Hyp, options: PreviewOptions, imgsz: int, folder: Path
) -> None:
    """Write both grids."""
    keys = choose(len(records), options.n, options.seed)
    for name, augment in ((AUGMENTED, True), (PLAIN, False)):
        dataset = DetectionDataset(records, imgsz, augment=augment, hyp=hyp, seed=options.seed)
        batch = collate([dataset[key] for key in keys])
        plot_batch(
            batch.images, batch.targets, batch.paths, folder / name, names, max_images=options.n, max_side=_MAX_SIDE
        )  # fmt: skip


def main(options: PreviewOptions) -> None:
    hyp = Hyp.load(options.hyp)
    folder = Path(options.output)
    taken = [folder / name for name in (AUGMENTED, PLAIN) if (folder / name).exists()]
    if taken and not options.exist_ok:
        raise InputError(f"--output: {taken[0]} is there already; choose another folder, or replace it by --exist-ok")
    spec = DatasetSpec.load(options.data, options.single_cls)
    labels = load_labels(spec, options.task, single_cls=options.single_cls)
    imgsz = check_img_size(options.imgsz)
    output = OutputFolder(folder, lambda: [record.image for record in labels.records])
    for name in (AUGMENTED, PLAIN):
        output.path(name)
    draw(labels.records, spec.names, hyp, options, imgsz, folder)
    drawn, size = min(options.n, len(labels.records)), len(labels.records)
    again = f", some again: {options.n} drawings" if options.n > size else ""
    LOG.info("%d of %s of %s drawn%s", drawn, counted(size, "image"), options.task, again)
    LOG.info("%s\n%s", folder / AUGMENTED, folder / PLAIN)


if __name__ == "__main__":
    sys.exit(run_script(main, PreviewOptions))
