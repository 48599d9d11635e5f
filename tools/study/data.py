"""The data sets of the study, made by a command, always the same.

    python -m tools.study.data digits6 --output runs/study/data
    python -m tools.study.data bccd6 --six-conditions-of path/to/bccd.yaml --output runs/study/data

``digits6`` has composed images of 160 px, each in one of six conditions that can be seen in it: dark digits on a light
ground or the same inverted, times sharp, blurred, noisy. ``digits1`` has the same images without them. A set of any
other name is the given one, every image in all six. ``conditions.csv`` has the condition of each image; no model sees
it.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from tqdm import tqdm

from utils.config.cli import run_script
from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.config.flags import option, path
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.core.output import temporary_folder
from utils.datasets.digits import label_text
from utils.datasets.digits.drawing import NAMES, STYLE, DigitDeck, compose, load_source
from utils.datasets.labels.splits import load_labels
from utils.evaluation.routing_scores import CONDITIONS

LOG = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
COMPOSED = ("digits6", "digits1")
COUNTS = {"train": 4000, "val": 600, "test": 600}
SIDE = 160  # px
# Small dark digits on a light ground, without the blur and the noise that the embedded set has.
SMALL = replace(
    STYLE,
    height=(12.0, 28.0, 60.0),
    digits=(1, 6),
    blur_share=0.0,
    noise_sigma=(0.0, 2.0),
    darker=True,
    photo_mean=(150.0, 215.0),
)
POLARITIES, DEGRADATIONS = ("plain", "inverted"), ("sharp", "blurred", "noisy")
ALL_CONDITIONS = tuple(f"{a}-{b}" for a, b in itertools.product(POLARITIES, DEGRADATIONS))
JPEG_QUALITY = 95
BLUR, NOISE = 1.6, 32.0  # standard deviations: px at 160 px, grey levels


def apply_condition(image: Image, condition: str, rng: np.random.Generator) -> Image:
    """``image`` [h, w, 3] as it looks under one of ``ALL_CONDITIONS``; the blur grows with the longer side."""
    polarity, degradation = condition.split("-")
    base = 255 - image if polarity == "inverted" else image
    if degradation == "blurred":
        return np.asarray(cv2.GaussianBlur(base, (0, 0), BLUR * max(image.shape[:2]) / SIDE), dtype=np.uint8)
    if degradation == "noisy":
        grain = rng.standard_normal(image.shape, dtype=np.float32) * NOISE
        return (base + grain).clip(0, 255).astype(np.uint8)
    return np.asarray(base)


def composed(split: str, seed: int = 0) -> Iterator[tuple[str, Image, str]]:
    """Name, image, label text of ``COUNTS`` images of ``SIDE`` px; no digit of a split is in another.

    A split draws its digits from a separate part of the file, so most writers are in one split only.
    """
    source = load_source()
    deck = DigitDeck(source.classes, split, np.random.default_rng((seed, SPLITS.index(split))))
    for i in range(COUNTS[split]):
        drawing = compose(
            source, split, (SIDE, SIDE), deck, np.random.default_rng((seed, SPLITS.index(split), 1, i)), SMALL
        )
        yield f"{split}{i:04d}.jpg", drawing.image, label_text(drawing.boxes, (SIDE, SIDE))


def read_set(spec: DatasetSpec, split: str, longest: int = 320) -> Iterator[tuple[str, Image, str]]:
    """Name, image of at most ``longest`` px, label text of each image of a split."""
    for record in load_labels(spec, split).records:
        image = read_image(record.image)
        scale = longest / max(image.shape[:2])
        if scale < 1:
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        rows = "".join(f"{int(row[0])} {' '.join(f'{v:.6f}' for v in row[1:])}\n" for row in record.boxes.tolist())
        yield f"{record.image.stem}.jpg", image, rows


def make_set(name: str, output: Path, source: str = "") -> Path:
    """Make the set ``name`` in ``output`` unless it is there; returns its data yaml.

    Args:
        source: data yaml of the set whose images are to have six conditions; none for those of ``COMPOSED``.

    Raises:
        InputError: another name without a ``source``.
    """
    folder = output / name
    file = folder / f"{name}.yaml"
    if file.is_file():
        return file
    if not source and name not in COMPOSED:
        raise InputError(f"{name}: expected {' or '.join(COMPOSED)}, or another name with --six-conditions-of")
    output.mkdir(parents=True, exist_ok=True)
    with temporary_folder(output, f".{name}-making-") as making:
        _make(name, making / name, folder, source)
        with contextlib.suppress(OSError):  # another process may have been first
            (making / name).rename(folder)
    if not file.is_file():
        raise InputError(f"{folder}: holds something else; remove it, or give another --output")
    return file


def _make(name: str, making: Path, folder: Path, source: str) -> None:
    """Write a set into ``making``, whose data yaml says ``folder``."""
    spec = DatasetSpec.load(source) if source else None
    rows = [["image", "condition"]]
    for number, split in enumerate(SPLITS):
        images = composed(split) if spec is None else read_set(spec, split)
        rng = np.random.default_rng((number, 6))
        for image_name, image, text, condition in _with_conditions("" if source else name, images, rng):
            _write_image(making, split, image_name, image, text)
            rows.append([image_name, condition])
    with (making / CONDITIONS).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    names = list(NAMES if spec is None else spec.names)
    content = {"path": str(folder.resolve()), **{split: f"images/{split}" for split in SPLITS}}
    text = yaml.safe_dump({**content, "nc": len(names), "names": names}, sort_keys=False)
    (making / f"{name}.yaml").write_text(text, encoding="utf-8")


def _with_conditions(
    name: str, images: Iterable[tuple[str, Image, str]], rng: np.random.Generator
) -> Iterator[tuple[str, Image, str, str]]:
    """The images of a split and their conditions: one for each composed image, equally often; all for a given one."""
    for index, (image_name, image, text) in enumerate(tqdm(images, desc="images", unit="image", disable=None)):
        if name == "digits1":
            yield image_name, image, text, ALL_CONDITIONS[0]
        elif name == "digits6":
            if index % len(ALL_CONDITIONS) == 0:
                order = rng.permutation(len(ALL_CONDITIONS))
            condition = ALL_CONDITIONS[order[index % len(ALL_CONDITIONS)]]
            yield image_name, apply_condition(image, condition, rng), text, condition
        else:
            for condition in ALL_CONDITIONS:
                stem = Path(image_name).stem
                yield f"{stem}-{condition}.jpg", apply_condition(image, condition, rng), text, condition


def _write_image(folder: Path, split: str, name: str, image: Image, labels: str) -> None:
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    if (folder / "images" / split / name).exists():
        raise InputError(f"{name}: two images of {split} have this name; rename one")
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    (folder / "images" / split / name).write_bytes(jpeg.tobytes())
    (folder / "labels" / split / f"{Path(name).stem}.txt").write_text(labels, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of ``python -m tools.study.data``."""

    names: tuple[str, ...] = option(
        (), str, "names", "digits6, digits1, or with --six-conditions-of a new name", nargs="+"
    )
    six_conditions_of: str = option("", path, "--six-conditions-of", "data yaml of a set to show under six conditions")
    output: str = option(str(ROOT / "runs/study/data"), path, "--output", "folder of the sets")


def main(options: DataOptions) -> None:
    for name in options.names:
        LOG.info("%s", make_set(name, Path(options.output), options.six_conditions_of))


if __name__ == "__main__":
    sys.exit(run_script(main, DataOptions))
