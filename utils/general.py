"""Names that scripts written for YOLOv5 v6.1 import from here. Nothing inside this repository does.

Most are the functions of other modules; the rest adapt them to v6.1's order of arguments.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.registry import make_divisible as _make_divisible
from utils.boxes import (
    box_iou,
    resample_segments,
    segment2box,
    segments2boxes,
    xyn2xy,
    xywh2xyxy,
    xywhn2xyxy,
    xyxy2xywh,
    xyxy2xywhn,
)
from utils.boxes import clip_coords as _clip_coords
from utils.boxes import scale_coords as _scale_coords
from utils.checkpoint.format import strip_checkpoint
from utils.checkpoint.transfer import intersect_dicts
from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.config.paths import ROOT
from utils.config.sizes import check_img_size
from utils.datasets.fetch import fetch
from utils.datasets.prepare import GENERATORS
from utils.downloads import Remote
from utils.errors import InputError
from utils.files import increment_path as _increment_path
from utils.log import colorstr as _colorstr
from utils.log import setup_logging
from utils.metrics import fitness
from utils.nms import non_max_suppression
from utils.seed import seed_everything
from utils.training.image_weights import class_weights as _class_weights
from utils.training.image_weights import image_weights as _image_weights
from utils.training.schedule import lr_factor

# The numbers 1 to 90 of COCO's object categories that no object has.
_COCO_UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_COLOURS = frozenset({"red", "green", "yellow", "blue", "magenta", "cyan", "bold"})


class _ScriptLogger(logging.Logger):
    """Writes INFO and above to stdout until the program that uses it installs a handler of its own.

    v6.1 installed its handler on import, and scripts count on seeing its lines.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, logging.INFO)
        self.parent = logging.getLogger(name)  # so its handlers and level hold here too

    def isEnabledFor(self, level: int) -> bool:
        quiet = self.parent.level if self.parent is not None else logging.NOTSET
        return level >= quiet and super().isEnabledFor(level)

    def callHandlers(self, record: logging.LogRecord) -> None:
        if self.hasHandlers():
            super().callHandlers(record)
        else:
            print(record.getMessage())


LOGGER: logging.Logger = _ScriptLogger("yolov5")
NCOLS: int | None = None  # width of progress bars: tqdm finds it out by itself


def set_logging(name: str | None = None, verbose: bool = True) -> logging.Logger:
    """Send all log lines to stdout, from INFO up, or from WARNING up with ``verbose`` off."""
    setup_logging(logging.INFO if verbose else logging.WARNING)
    return logging.getLogger(name) if name else LOGGER


def print_args(name: str, opt: Any) -> None:
    """Log the options of a script, an ``argparse.Namespace``, in one line."""
    LOGGER.info("%s: %s", name, ", ".join(f"{key}={value}" for key, value in vars(opt).items()))


def colorstr(*words: str) -> str:
    """``colorstr("red", "bold", "text")``: the last word in the styles before it, blue and bold when there are none.

    Only when stdout is a terminal; styles that it may not know are left out.
    """
    *styles, text = words
    known = [style.removeprefix("bright_") for style in styles if style.removeprefix("bright_") in _COLOURS]
    return text if styles and not known else _colorstr(text, *known)


class Profile(contextlib.ContextDecorator):
    """``with Profile(): ...`` or ``@Profile()``: prints the seconds the body took; they stay in ``seconds``."""

    seconds = 0.0

    def __enter__(self) -> Profile:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._begin
        print(f"took {self.seconds:.5f} s")


def init_seeds(seed: int = 0) -> None:
    """Seed Python, numpy and torch; 0 also asks for repeatable GPU kernels, as in v6.1."""
    seed_everything(seed, deterministic=seed == 0 and torch.cuda.is_available())


# --- checks ----------------------------------------------------------------------------------------------------------


def is_ascii(s: Any = "") -> bool:
    """Whether the text of any object, a list of names say, is ASCII."""
    return str(s).isascii()


def check_suffix(
    file: str | Path | Sequence[str | Path] = "yolov5s.pt", suffix: str | Sequence[str] = (".pt",), msg: str = ""
) -> None:
    """Raise InputError for a file, or one of several, whose suffix is another; names without a suffix pass."""
    allowed = [suffix] if isinstance(suffix, str) else list(suffix)
    for name in [file] if isinstance(file, (str, Path)) else file:
        found = Path(name).suffix.lower()
        if allowed and any(allowed) and found and found not in allowed:
            raise InputError(f"{msg}{name}: expected a name ending in {' or '.join(allowed)}")


def check_file(file: str | Path, suffix: str | Sequence[str] = "") -> str:
    """The path of a file given by its path, or by a name to be found in ``data``, ``models`` or ``utils``.

    Raises:
        FileNotFoundError: there is none. InputError: there are several, it is an address, or its suffix is wrong.
    """
    check_suffix(file, suffix)
    name = str(file)
    if not name or Path(name).is_file():
        return name
    if "://" in name:
        raise InputError(f"{name}: nothing is downloaded; save the file and give its path")
    folders = [ROOT / folder for folder in ("data", "models", "utils")]
    found = [path for folder in folders for path in sorted(folder.rglob(glob.escape(Path(name).name)))]
    found = [path for path in found if path.is_file() and path.parts[-len(Path(name).parts) :] == Path(name).parts]
    if not found:
        raise FileNotFoundError(f"{name}: no such file (looked at {Path(name).absolute()}, and in data, models, utils)")
    if len(found) > 1:
        raise InputError(f"{name} may be any of {', '.join(map(str, found))}: give the path")
    return str(found[0])


def check_yaml(file: str | Path, suffix: str | Sequence[str] = (".yaml", ".yml")) -> str:
    """As :func:`check_file`, for a yaml file."""
    return check_file(file, suffix)


def check_version(current: str, minimum: str, name: str = "version", pinned: bool = False, hard: bool = False) -> bool:
    """Whether a version is at least, or with ``pinned`` exactly, another; ``hard`` raises InputError if not."""
    have, need = _numbers(current), _numbers(minimum)
    good = have == need if pinned else have >= need
    if hard and not good:
        raise InputError(f"{name} {minimum} is needed, {current} is installed")
    return good


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.14.1+cpu" -> (2, 14, 1); zeros at the end do not count."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_requirements(
    requirements: str | Path | Iterable[str] = ROOT / "requirements.txt",
    exclude: Iterable[str] = (),
    install: bool = False,
    cmds: Iterable[str] = (),
) -> bool:
    """Warn about packages that are missing or too old; nothing is ever installed.

    Args:
        requirements: a requirements file, one requirement ("numpy>=1.26"), or several.
        exclude: packages not to ask for.
        install, cmds: without effect.

    Returns:
        Whether all are there.
    """
    if isinstance(requirements, Path) or (isinstance(requirements, str) and Path(requirements).suffix == ".txt"):
        lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    else:
        lines = [requirements] if isinstance(requirements, str) else list(requirements)
    wanted = [text for line in lines if (text := line.split("#")[0].split(";")[0].strip()) and text[0] != "-"]
    missing = [text for text in wanted if _package(text) not in set(exclude) and not _installed(text)]
    if missing:
        LOGGER.warning("missing or too old: %s; install with: pip install %s", ", ".join(missing),
                       " ".join(f'"{text}"' for text in missing))  # fmt: skip
    return not missing


def _package(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0]


def _installed(requirement: str) -> bool:
    """Whether the package is there, and not older than a ``>=`` in the requirement says."""
    try:
        current = importlib.metadata.version(_package(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    floor = re.search(r">=\s*([\w.]+)", requirement)
    return floor is None or check_version(current, floor[1])


def check_imshow() -> bool:
    """Whether OpenCV can open a window here; warns if not."""
    import cv2

    # Qt ends the whole process where there is no display, so it is not even asked.
    headless = sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not headless:
        try:
            cv2.imshow("test", np.zeros((1, 1, 3), np.uint8))
            cv2.waitKey(1)
            cv2.destroyAllWindows()
            return True
        except cv2.error:
            pass
    LOGGER.warning("no window can be opened here")
    return False


def check_dataset(data: str | Path | Mapping[str, Any], autodownload: bool = False) -> dict[str, Any]:
    """A data yaml as v6.1's dict: ``path``, ``train``, ``val``, ``test`` (absolute, a list when several), ``nc``,
    ``names``. A dict is returned as it is. Nothing is downloaded; the embedded set is composed if need be.

    Raises:
        FileNotFoundError: the yaml or the pictures it names are missing.
        InputError: something in the yaml is wrong.
    """
    if isinstance(data, Mapping):
        return dict(data)
    spec = DatasetSpec.load(data)
    if spec.generate in GENERATORS:
        GENERATORS[spec.generate](spec.root)
    content: dict[str, Any] = {"path": spec.root, "nc": spec.nc, "names": list(spec.names)}
    for split in SPLITS:
        places = [str(path) for path in spec.sources(split)] if getattr(spec, split) else []
        content[split] = places if len(places) > 1 else places[0] if places else None
    return content


# --- files -----------------------------------------------------------------------------------------------------------


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """``runs/exp``, then ``runs/exp2``, ``runs/exp3`` ...; see :func:`utils.files.increment_path`."""
    return _increment_path(path, exist_ok, mkdir, sep=sep)


def get_latest_run(search_dir: str | Path = ".") -> str:
    """The newest ``last*.pt`` at any depth of a folder, "" when there is none."""
    found = sorted(Path(search_dir).rglob("last*.pt"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else ""


def download(
    url: str | Iterable[str],
    dir: str | Path = ".",
    unzip: bool = True,
    delete: bool = True,
    curl: bool = False,
    threads: int = 1,
) -> None:
    """Fetch a file, or several, into a folder and unpack archives there, nothing that is there being replaced.

    An archive is kept only when it is not unpacked; ``delete``, ``curl`` and ``threads`` have no effect.
    """
    for address in [url] if isinstance(url, str) else url:
        fetch(Remote(address), Path(dir), unpack_archive=unzip)


def strip_optimizer(f: str | Path = "best.pt", s: str | Path = "") -> None:
    """Reduce a checkpoint to what is needed for use, in place or as a new file ``s``."""
    if s:
        shutil.copyfile(f, s)
    LOGGER.info("%s: stripped to %.1f MB", s or f, strip_checkpoint(Path(s or f)))


# --- numbers ---------------------------------------------------------------------------------------------------------


def make_divisible(x: float, divisor: int | Tensor) -> int:
    """``x`` rounded up to a multiple of ``divisor``, or of the largest when it is a tensor of strides."""
    return _make_divisible(x, int(divisor.max()) if isinstance(divisor, Tensor) else divisor)


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Half a cosine from ``y1`` at 0 to ``y2`` at ``steps``."""
    return lambda x: y2 + (y1 - y2) * lr_factor(x, steps, 0.0, cosine=True)  # type: ignore[arg-type]


def labels_to_class_weights(labels: Sequence[np.ndarray], nc: int = 80) -> Tensor:
    """[nc] inverse frequency of each class in label arrays [n, 5+] (class first), summing to one."""
    return torch.from_numpy(_class_weights(labels, nc)).float()


def labels_to_image_weights(
    labels: Sequence[np.ndarray], nc: int = 80, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """[pictures] sum of the class weights over a picture's objects; each counts 1 without ``class_weights``."""
    weights = np.ones(nc) if class_weights is None else np.asarray(class_weights).reshape(nc)
    return _image_weights(labels, weights)


def coco80_to_coco91_class() -> list[int]:
    """COCO's category number of each of the 80 classes, in their order."""
    return [number for number in range(1, 91) if number not in _COCO_UNUSED]


def scale_coords(img1_shape: Sequence[float], coords: Any, img0_shape: Sequence[float], ratio_pad: Any = None) -> Any:
    """As :func:`utils.boxes.scale_coords`, and like v6.1 it changes ``coords`` [n, 4] itself."""
    coords[:, :4] = _scale_coords(img1_shape, coords[:, :4], img0_shape, ratio_pad)
    return coords


def clip_coords(boxes: Any, shape: Sequence[float]) -> None:
    """Cut corners [n, 4] to a picture of (height, width), in place like v6.1."""
    boxes[:, :4] = _clip_coords(boxes[:, :4], shape)


__all__ = [
    "LOGGER",
    "NCOLS",
    "ROOT",
    "Profile",
    "box_iou",
    "check_dataset",
    "check_file",
    "check_img_size",
    "check_imshow",
    "check_requirements",
    "check_suffix",
    "check_version",
    "check_yaml",
    "clip_coords",
    "coco80_to_coco91_class",
    "colorstr",
    "download",
    "fitness",
    "get_latest_run",
    "increment_path",
    "init_seeds",
    "intersect_dicts",
    "is_ascii",
    "labels_to_class_weights",
    "labels_to_image_weights",
    "make_divisible",
    "non_max_suppression",
    "one_cycle",
    "print_args",
    "resample_segments",
    "scale_coords",
    "segment2box",
    "segments2boxes",
    "set_logging",
    "strip_optimizer",
    "xyn2xy",
    "xywh2xyxy",
    "xywhn2xyxy",
    "xyxy2xywh",
    "xyxy2xywhn",
]
