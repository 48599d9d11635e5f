"""How fast one process makes training and validation items, as ratios to cv2.imread + cv2.resize of the same images.

python tests/benchmarks/data_pipeline.py my.yaml [...] [--imgsz 640 320] [--images 48] [--rounds 5] [--stages]

OpenCV and torch run on one thread. Times are those of the processor, the best of several rounds in which all kinds take
turns, so that other work on the machine disturbs the ratios little. Mosaic items use the default hyper-parameters.
They are those of one of eight workers in the middle of an epoch of --records images: a smaller data set is
repeated, and each copy of an image is decoded for itself.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.config.dataset_spec import DatasetSpec
from utils.core.memory import keep_freed_memory
from utils.datasets import dataset as dataset_module
from utils.datasets.augment import geometry, mosaic, pixels
from utils.datasets.augment.mosaic_sampling import POOLS, recent_images_needed
from utils.datasets.dataset import DetectionDataset, ItemKey
from utils.datasets.image_store import ImageStore
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import build_loader

BATCH = 16  # images

# Stage -> (owner, function): what a function spends in others of this table is counted there.
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "decode": ((ImageStore, "read"),),
    "resize": ((cv2, "resize"), (dataset_module, "letterbox")),
    "place": ((mosaic.MosaicLayout, "paint"), (mosaic.MosaicLayout, "enlarge"), (mosaic.Enlargement, "paint")),
    "warp": ((geometry.Warp, "apply"),),
    "hsv": ((pixels.HsvJitter, "__call__"), (pixels.HsvJitter, "split")),
    "labels": ((mosaic.MosaicLayout, "place_boxes"), (geometry.Warp, "move_labels")),
    "to tensor": ((dataset_module, "_to_item"), (dataset_module, "flip_horizontal")),
    "rest": ((DetectionDataset, "__getitem__"),),
}


@contextmanager
def stage_times() -> Iterator[dict[str, float]]:
    """Seconds of each stage while the context lasts."""
    seconds: dict[str, float] = defaultdict(float)
    inner: list[float] = []
    originals = [(owner, name, getattr(owner, name)) for parts in STAGES.values() for owner, name in parts]

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                seconds[stage] += spent - inner.pop()
                if inner:
                    inner[-1] += spent

        return wrapper

    for stage, parts in STAGES.items():
        for owner, name in parts:
            setattr(owner, name, timed(stage, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def read_and_resize(records: Sequence[LabelRecord], imgsz: int) -> None:
    """The yardstick: what any loader has to do with an image."""
    for record in records:
        image = cv2.imread(str(record.image))
        height, width = image.shape[:2]
        ratio = imgsz / max(height, width)
        cv2.resize(image, (int(width * ratio), int(height * ratio)))


def seconds_per(count: int, work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) / count


def fetch(data: DetectionDataset, keys: Sequence[ItemKey]) -> None:
    for key in keys:
        data[key]


def training_keys(data: DetectionDataset, images: int, rounds: int, near: bool) -> list[list[ItemKey]]:
    """What a worker asks for in the middle of an epoch, ``images`` a round; it has done what is before."""
    loader = build_loader(data, batch_size=BATCH, workers=0, shuffle=True, recent_mosaics=near)
    if near:
        data.keep_recent(recent_images_needed(BATCH, POOLS))
    of_one_lane = list(loader.batch_sampler)[::POOLS]  # type: ignore[arg-type]
    before, keys = of_one_lane[:8], [key for batch in of_one_lane[8:] for key in batch]
    if len(keys) < images * rounds:
        raise SystemExit(f"{images} images in {rounds} rounds need more --records")
    for batch in before:
        fetch(data, batch)
    return [keys[start : start + images] for start in range(0, images * rounds, images)]


def compare(name: str, train: Sequence[LabelRecord], val: Sequence[LabelRecord], options: argparse.Namespace) -> None:
    many = [train[i % len(train)] for i in range(max(options.records, len(train)))]
    for imgsz in options.imgsz:
        kinds = {
            "mosaic": DetectionDataset(many, imgsz, augment=True),
            "mosaic, all": DetectionDataset(many, imgsz, augment=True),
            "mosaic, ram": DetectionDataset(train, imgsz, augment=True, cache_images="ram"),
            "val, rect": DetectionDataset(val, imgsz, rect=True, batch_size=32, pad=0.5),
        }
        rng, chosen = np.random.default_rng(0), {}
        for kind, data in kinds.items():
            if kind in ("mosaic", "mosaic, all"):
                chosen[kind] = training_keys(data, options.images, options.rounds + 1, kind == "mosaic")
            else:
                same = rng.permutation(len(data))[: options.images].tolist()
                chosen[kind] = [[ItemKey(epoch, index) for index in same] for epoch in range(options.rounds + 1)]
        best: dict[str, list[tuple[float, float]]] = defaultdict(list)  # (yardstick, ours) of each round
        for epoch in range(options.rounds):
            for kind, data in kinds.items():
                keys = chosen[kind][epoch]
                records = [data.records[key.image] for key in keys]
                plain = seconds_per(len(keys), lambda: read_and_resize(records, imgsz))  # noqa: B023
                ours = seconds_per(len(keys), lambda: fetch(data, keys))  # noqa: B023
                best[kind].append((plain, ours))
        for kind, rounds in best.items():
            plain, ours = (min(column) for column in zip(*rounds))
            print(
                f"{name:<12}{imgsz:>5}  {kind:<12}{1 / ours:>8.0f} images/s {1e3 * ours:>8.2f} ms "
                f"{1e3 * plain:>8.2f} ms plain {ours / plain:>7.2f}x"
            )
            if options.stages:
                print(f"{'':19}{shares(kinds[kind], chosen[kind][-1])}")


def shares(data: DetectionDataset, keys: Sequence[ItemKey]) -> str:
    """The stages in percent; the clock that is read for each of them adds a little to the small ones."""
    with stage_times() as seconds:
        fetch(data, keys)
    total = sum(seconds.values())
    return "  ".join(f"{stage} {100 * seconds[stage] / total:.0f} %" for stage in STAGES if seconds[stage])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="data yaml")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640, 320])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=4096, help="images of the data set that mosaics are made of")
    parser.add_argument("--stages", action="store_true", help="also the share of each stage")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a loader; good for the yardstick too
    with tempfile.TemporaryDirectory() as folder:
        for path in options.data:
            spec = DatasetSpec.load(path)
            train, val = (load_labels(spec, split, cache_dir=Path(folder)).records for split in ("train", "val"))
            compare(Path(path).stem, train, val, options)


if __name__ == "__main__":
    main()
