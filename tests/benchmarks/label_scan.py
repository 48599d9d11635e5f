"""How long it takes to find, read and check the images and labels of a large set, and to start again from the cache.

python tests/benchmarks/label_scan.py [--images 100000] [--rows 5] [--folder /tmp/scan]

Makes small JPEG images (hard links to 32 different ones) and a label file for each in a temporary folder, which is
removed at the end, or kept when it is named. Each start is a process of its own, so that its peak memory is its own.
"Cold" means without a label cache; the files themselves were just written, so the page cache of the system is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

MASTERS = 32  # ext4 allows 65,000 links to one file
CLASSES = 80


def make_set(folder: Path, images: int, rows: int) -> None:
    """Write ``images/train/000/0000001.jpg`` ... (1,000 a folder) and their label files of 0 to 2 x ``rows`` rows."""
    rng = np.random.default_rng(0)
    masters = []
    for i in range(MASTERS):
        buffer = BytesIO()
        notes: dict[str, Image.Exif] = {}
        if i % 4 == 0:  # a quarter of the images come from a phone
            notes["exif"] = Image.Exif()
            notes["exif"][274] = 6
        pixels = rng.integers(0, 256, (32, 24 + i, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "jpeg", **notes)
        masters.append(folder / f"master{i}.jpg")
        masters[-1].write_bytes(buffer.getvalue())
    counts = rng.integers(0, 2 * rows + 1, images)
    for i, count in enumerate(counts.tolist()):
        image = folder / f"images/train/{i // 1000:03d}/{i:07d}.jpg"
        label = folder / f"labels/train/{i // 1000:03d}/{i:07d}.txt"
        if i % 1000 == 0:
            image.parent.mkdir(parents=True)
            label.parent.mkdir(parents=True)
        os.link(masters[i % MASTERS], image)
        boxes = rng.random((count, 4)) * 0.4 + 0.1
        classes = rng.integers(0, CLASSES, count)
        label.write_text("".join(f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, (x, y, w, h) in zip(classes, boxes)))


def scan(folder: Path, workers: int) -> None:
    """One start: print its figures as a line of JSON."""
    from utils.core.files import find_images
    from utils.datasets.labels.cache import cache_path_for
    from utils.datasets.labels.scan import scan_labels

    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    images = find_images([folder / "images/train"])
    found = time.perf_counter()
    labels = scan_labels(images, CLASSES, cache_path=cache_path_for(images), workers=workers)
    end = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "images": len(labels.records),
        "boxes": sum(len(record.boxes) for record in labels.records),
        "find_s": found - start,
        "wall_s": end - start,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "children_cpu_s": children.ru_utime + children.ru_stime,
        "imports_mib": before.ru_maxrss / 1024,
        "peak_mib": after.ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=5, help="mean number of boxes in an image")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="make the set here, or use the one already there, and keep it")
    parser.add_argument("--scan", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scan:
        scan(options.folder, options.workers)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="label_scan_"))
    try:
        if not (folder / "images").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_set(folder, options.images, options.rows)
        for cache in (folder / "labels").glob("**/*.cache"):
            cache.unlink()
        command = [sys.executable, __file__, "--scan", "--folder", str(folder), "--workers", str(options.workers)]
        heads = {"images": 10, "boxes": 10, "find s": 8, "wall s": 8, "cpu s": 8, "images/s": 12, "MiB": 7}
        print("start " + "".join(f"{head:>{width}}" for head, width in heads.items()))
        for name in ("cold", "warm", "warm"):
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            f = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:<6}{f['images']:>10}{f['boxes']:>10}{f['find_s']:>8.2f}{f['wall_s']:>8.2f}"
                f"{f['cpu_s'] + f['children_cpu_s']:>8.2f}{f['images'] / f['wall_s']:>12.0f}"
                f"{f['peak_mib'] - f['imports_mib']:>7.0f}"
            )
        print("MiB: peak memory above that of the imports alone; cold: no label cache, but a warm page cache")
    finally:
        if not options.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
