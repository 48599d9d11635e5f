"""The embedded data set: handwritten digits scattered over photos, composed on this machine without a network.

Everything comes from inside the scikit-learn package: the 1,797 8x8 handwritten digits (UCI "Optical Recognition of
Handwritten Digits", CC BY 4.0) and its two sample photos (CC BY 2.0). The result is an ordinary YOLO folder.
"""

from __future__ import annotations

import glob
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from utils.config.dataset_spec import SPLITS
from utils.core.errors import InputError
from utils.core.output import temporary_folder
from utils.datasets.digits.drawing import STYLE, DigitDeck, DigitSource, FloatArray, compose, load_source

LOGGER = logging.getLogger(__name__)

DEFAULT_COUNTS: Mapping[str, int] = {"train": 800, "val": 160, "test": 80}
DEFAULT_HW: tuple[tuple[int, int], ...] = ((320, 320), (240, 320), (320, 240))
MARKER = "digits.json"
_KINDS = (("images", ".jpg"), ("labels", ".txt"))
# All that is ever below the folder: the set, and the caches of labels and images.
_OURS = re.compile(r"digits\.json|labels/[\w-]+\.cache|(images|labels)/\w+/\.?\d{4,}\.(jpg|txt)(\..*\.npy)?")
VERSION = 1  # raise it when the drawing code changes; a change of STYLE is noticed by itself


def label_text(boxes: FloatArray, hw: tuple[int, int]) -> str:
    """Rows ``class x y w h`` (centre and size, 0..1, six decimals) of ``boxes`` [n, 5] class + xyxy px."""
    height, width = hw
    rows = []
    for kind, x1, y1, x2, y2 in boxes.tolist():
        numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        rows.append(" ".join([str(int(kind)), *(f"{number:.6f}" for number in numbers)]) + "\n")
    return "".join(rows)


def generate_digits(
    root: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int] | None = None,
    image_hw: Sequence[tuple[int, int]] = DEFAULT_HW,
) -> None:
    """Compose the set into ``root`` (new or empty): ``images/SPLIT/NNNN.jpg`` and ``labels/SPLIT/NNNN.txt``.

    ``counts``: images per split (default 800/160/80); ``image_hw``: sizes in px, half of the images have the first
    one and the rest share the others. The same arguments give the same files. ``digits.json`` says, last of all, that
    the set is complete. Raises InputError for a folder with other content, an unknown split, a missing scikit-learn.
    """
    counts = dict(DEFAULT_COUNTS if counts is None else counts)
    if unknown := sorted(set(counts) - set(SPLITS)):
        raise InputError(f"counts has unknown split {unknown[0]!r}; expected some of {', '.join(SPLITS)}")
    if root.is_dir() and any(root.iterdir()):
        raise InputError(f"{root}: is not empty; the digits set needs a new or empty folder")
    source = load_source()
    _write_marker(root, {"complete": False})
    with tqdm(total=sum(counts.values()), desc="composing digits", unit="image", disable=None) as progress:
        for split, count in counts.items():
            _generate_split(root, split, count, source, (seed, SPLITS.index(split)), image_hw, progress)
    state = {"complete": True, "version": VERSION, "style": asdict(STYLE), "seed": seed, "counts": counts}
    _write_marker(root, state)


def _generate_split(
    root: Path,
    split: str,
    count: int,
    source: DigitSource,
    seed: tuple[int, int],
    image_hw: Sequence[tuple[int, int]],
    progress: tqdm[Any],
) -> None:
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    deck = DigitDeck(source.classes, split, np.random.default_rng(seed))
    order = np.random.default_rng((*seed, 2))
    empty = set(order.permutation(count)[: math.ceil(STYLE.empty_share * count)].tolist())
    for i in range(count):
        rng = np.random.default_rng((*seed, 1, i))
        hw = image_hw[0] if len(image_hw) == 1 or rng.random() < 0.5 else image_hw[int(rng.integers(1, len(image_hw)))]
        drawing = compose(source, split, hw, deck, rng, digits=0 if i in empty else None)
        jpeg = cv2.imencode(".jpg", drawing.image, [cv2.IMWRITE_JPEG_QUALITY, STYLE.jpeg_quality])[1]
        (images / f"{i:04d}.jpg").write_bytes(jpeg.tobytes())
        (labels / f"{i:04d}.txt").write_text(label_text(drawing.boxes, hw), encoding="utf-8")
        progress.update()


def _write_marker(root: Path, state: Mapping[str, Any]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def is_complete(root: Path) -> bool:
    """Whether ``root`` holds a whole set of today's version and style, with as many files as its marker promises."""
    try:
        state = json.loads((root / MARKER).read_text(encoding="utf-8"))
        counts = state["counts"] if state["complete"] and state["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if not counts or state.get("style") != json.loads(json.dumps(asdict(STYLE))):
        return False
    files = [(root / kind / split, f"*{end}", n) for split, n in counts.items() for kind, end in _KINDS]
    return all(sum(1 for _ in folder.glob(pattern)) == n for folder, pattern, n in files)


def ensure_digits(root: Path, *, seed: int = 0, counts: Mapping[str, int] | None = None) -> None:
    """Compose the set when ``root`` does not hold a complete one; calls at the same time wait for it.

    The set is built beside ``root`` and renamed, so ``root`` never holds half a set. Half a set is replaced.

    Raises:
        InputError: the folder holds anything else.
    """
    root = root.resolve()
    if is_complete(root):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{root.name}-making-"
    with _folder_lock(root.parent) as locked:
        if is_complete(root):
            return
        for stale in root.parent.glob(f"{glob.escape(prefix)}*") if locked else ():  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        LOGGER.info("composing the embedded digits set in %s (once, some seconds)", root)
        with temporary_folder(root.parent, prefix) as folder:
            _put_aside(root, folder)
            generate_digits(folder / "new", seed=seed, counts=counts)
            with suppress(OSError):  # without a lock (see _folder_lock) another process may have been first
                (folder / "new").rename(root)
        if not is_complete(root):
            raise OSError(f"{root}: could not put the composed digits set there; is the folder in use?")


def _put_aside(root: Path, folder: Path) -> None:
    """Move half a set away; InputError when anything there is not ours."""
    if not root.exists():
        return
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    if other := next((name for name in sorted(files) if not _OURS.fullmatch(name)), None):
        raise InputError(f"{root}: holds {other}, which is not of the digits set; give another folder, or move it away")
    root.rename(folder / "old")


@contextmanager
def _folder_lock(folder: Path) -> Iterator[bool]:
    """Hold a folder against other processes; yields whether it is held.

    The system frees it when a process dies, and no lock file stays behind.
    Where folders cannot be locked (Windows, some network disks) nothing is held: two processes then compose the same
    files twice and the first rename wins.
    """
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(handle)
