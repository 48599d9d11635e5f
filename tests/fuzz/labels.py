"""Broken label files, images and caches by the thousand, through the functions that read them at every start.

python tests/fuzz/labels.py [--n 20000] [--seed 0]

Valid files are changed at random: bytes, lengths, numbers, characters, lines. Whatever comes out, reading must end
within two seconds of the processor and without another exception than those it promises; rows that are kept must be
usable, and each row or image that is refused must be named with its file (and line). Exits with 1 and the number of
each case that fails.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.datasets.labels.records import BAD_IMAGE, BAD_LABELS, BAD_ROW
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.yolo_text import read_label_file, row_lines

LIMIT_S = 2.0
CLASSES = 80
WORDS = (
    "nan", "inf", "-inf", "1e999", "-1e-999", "1e30", "5e-324", "99999999999999999999", "-1", "80", "1000", "0", "-0.0",
    "1.00001", "1_0", "0x10", "0,5", "½", "１", "٣", "−0.5", "\u00a00.5", "\u202e", "\0", "\x1b[31m", "\ufeff", "cat",
    "", "1;2", "--", ".", "+",
)  # fmt: skip
TEXTS = (
    "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.05 0.05\n79 0.7 0.7 0.2 0.2\n",
    "3 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n0 0.5 0.5 0.25 0.5\n",
    "0 0.5 0.5 1 1",
    "\ufeff2 0.25 0.25 0.125 0.125\r\n2 0.75 0.75 0.125 0.125\r\n",
)


def images() -> list[tuple[str, bytes]]:
    """(suffix, content) of small images of all formats."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (24, 32, 3), np.uint8)
    found = [(suffix, cv2.imencode(suffix, noise)[1].tobytes()) for suffix in (".jpg", ".png", ".bmp", ".tif", ".webp")]
    found.append((".png", cv2.imencode(".png", noise.astype(np.uint16) * 200)[1].tobytes()))
    exif = Image.Exif()
    exif[274] = 6
    for suffix, kind in ((".jpg", "jpeg"), (".png", "png"), (".webp", "webp"), (".tif", "tiff"), (".mpo", "mpo")):
        buffer = BytesIO()
        Image.fromarray(noise).save(buffer, kind, exif=exif)
        found.append((suffix, buffer.getvalue()))
    return found


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes, cut, repeat, insert."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(data) + 1))
        length = int(rng.integers(1, 1 + max(1, len(data) // 4)))
        way = int(rng.integers(0, 6))
        if way == 0:
            for place in rng.integers(0, max(len(data), 1), min(len(data), int(rng.integers(1, 9)))).tolist():
                data[place] ^= 1 << int(rng.integers(0, 8))
        elif way == 1:
            del data[at:]
        elif way == 2:
            del data[at : at + length]
        elif way == 3:
            data[at:at] = data[at : at + length]
        elif way == 4:
            data[at:at] = rng.integers(0, 256, length, np.uint8).tobytes()
        else:
            data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data)


def mutate_text(text: str, rng: np.random.Generator) -> bytes:
    """Change words and lines of a label file; a third is changed in its bytes as well, one in fifty made enormous."""
    lines = [line.split(" ") for line in text.split("\n")]
    for _ in range(int(rng.integers(0, 4))):
        line = lines[int(rng.integers(0, len(lines)))]
        at = int(rng.integers(0, len(line) + 1))
        way = int(rng.integers(0, 4))
        word = WORDS[int(rng.integers(0, len(WORDS)))]
        if rng.random() < 0.3:
            word = repr(float(rng.normal() * 10.0 ** rng.integers(-9, 9)))
        if way == 0:
            line[at:at] = [word]
        elif way == 1:
            line[at : at + 1] = [word]
        elif way == 2:
            del line[at : at + 1]
        else:
            lines.append(list(line))
    if rng.random() < 0.02:
        longest = lines[int(rng.integers(0, len(lines)))]
        longest += [WORDS[int(rng.integers(0, len(WORDS)))] or "0.5"] * int(rng.integers(1_000, 200_000))
    encoding = ("utf-8", "utf-8", "utf-8", "utf-16", "utf-16-be")[int(rng.integers(0, 5))]
    content = "\n".join(" ".join(line) for line in lines).encode(encoding, "replace")
    return mutate(content, rng) if rng.random() < 0.33 else content


def check_rows(path: Path, figures: Counter[str]) -> None:
    """Read a label file and look at what comes out."""
    for nc in (CLASSES, None):
        rows = read_label_file(path, (64, 48), nc)
        boxes = rows.boxes
        assert boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 5, "shape"
        assert np.isfinite(boxes).all(), "a box that is not finite"
        assert (boxes[:, 1:] >= 0).all() and (boxes[:, 1:] <= 1).all(), "a box outside the image"
        assert (boxes[:, 0] >= 0).all() and (boxes[:, 0] == np.floor(boxes[:, 0])).all(), "a class that is no class"
        assert nc is None or (boxes[:, 0] < nc).all(), "a class beyond the names"
        assert len(rows.segments) in (0, len(boxes)), "segments"
        assert len(row_lines(path, (64, 48), nc)) == len(boxes), "lines"
        for finding in rows.findings:
            text = str(finding)
            assert finding.file == str(path) and finding.line > 0 and finding.problem and finding.action, "unnamed"
            assert text.isprintable() and len(text) < len(str(path)) + 400, f"message {text[:500]!r}"
        assert all(line > 0 for line, _ in rows.foreign), "unnamed class"
    figures["label files"] += 1
    figures["rows kept"] += len(boxes)
    figures["rows refused"] += sum(finding.kind == BAD_ROW for finding in rows.findings)
    figures["files with unknown classes"] += bool(read_label_file(path, (64, 48), CLASSES).foreign)


def check_image_file(path: Path, figures: Counter[str]) -> None:
    """Scan one image with its label file."""
    labels = scan_labels([path], CLASSES, workers=0, strict=False)
    figures["images"] += 1
    if not labels.records:
        (finding,) = labels.report.findings
        assert finding.kind in (BAD_IMAGE, BAD_LABELS) and finding.file == str(path) and finding.problem, "unnamed"
        assert str(finding).isprintable(), f"message {finding!s:.500}"
        figures["images refused"] += 1
        return
    (record,) = labels.records
    try:
        image = read_image(path)
    except InputError as error:
        assert str(path) in str(error), "unnamed"
        figures["images accepted by their ends and refused when decoded"] += 1
    else:
        assert image.shape[:2] == record.hw, f"size {image.shape} is not {record.hw}"


def check_cache(folder: Path, images: list[Path], rng: np.random.Generator, figures: Counter[str]) -> None:
    """Break the cache of a small set: the scan must be the same as without it."""
    cache = folder / "set.cache"
    fresh = scan_labels(images, CLASSES, cache_path=cache, workers=0)
    cache.write_bytes(mutate(cache.read_bytes(), rng))
    again = scan_labels(images, CLASSES, cache_path=cache, workers=0)
    assert fresh.report == again.report and len(fresh.records) == len(again.records), "another scan"
    for a, b in zip(fresh.records, again.records):
        assert (a.image, a.label, a.hw) == (b.image, b.label, b.hw) and np.array_equal(a.boxes, b.boxes), "another scan"
    figures["caches"] += 1


def attempt(case: int, seed: int, folder: Path, known: list[Path], figures: Counter[str]) -> None:
    """One case; every tenth is a cache, three of ten are images, the others are label files."""
    rng = np.random.default_rng((seed, case))
    if case % 10 == 0:
        check_cache(folder, known, rng, figures)
    elif case % 10 < 4:
        kinds = images_once()
        suffix, content = kinds[int(rng.integers(0, len(kinds)))]
        path = folder / f"image{suffix}"
        path.write_bytes(mutate(content, rng))
        check_image_file(path, figures)
    else:
        path = folder / "rows.txt"
        path.write_bytes(mutate_text(TEXTS[int(rng.integers(0, len(TEXTS)))], rng))
        check_rows(path, figures)


_IMAGES: list[tuple[str, bytes]] = []


def images_once() -> list[tuple[str, bytes]]:
    """The unbroken images, made once."""
    if not _IMAGES:
        _IMAGES.extend(images())
    return _IMAGES


def small_set(folder: Path) -> list[Path]:
    """Four images with label files, for the caches."""
    images = []
    for i, text in enumerate(TEXTS):
        images.append(folder / f"known{i}.png")
        Image.new("RGB", (64, 48)).save(images[-1])
        images[-1].with_suffix(".txt").write_text(text + "7 9 9 9 9\n", encoding="utf-8")
    return images


def timed(run: Callable[[], None]) -> float:
    """Seconds of the processor for a call, which do not depend on what else the machine does."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    figures: Counter[str] = Counter()
    failures, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = small_set(folder)
        for case in range(options.first, options.first + options.n):
            try:
                seconds = timed(lambda case=case: attempt(case, options.seed, folder, known, figures))  # type: ignore[misc]
                slowest = max(slowest, seconds)
                assert seconds < LIMIT_S, f"{seconds:.1f} s"
            except Exception:
                failures += 1
                if failures <= 20:
                    print(f"case {case}:\n{traceback.format_exc(limit=-4)}")
    print("; ".join(f"{count} {what}" for what, count in figures.items()))
    print(f"{options.n} cases, {failures} failures, the slowest {slowest:.2f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
