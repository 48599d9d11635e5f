"""Names of ``utils.general`` of YOLOv5 v6.1 that no other module has, with v6.1's order of arguments."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2 as opencv
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from models import registry
from utils.checkpoint.format import strip_checkpoint
from utils.config.paths import ROOT
from utils.core import boxes as box_math
from utils.core import files, log
from utils.core.downloads import RemoteFile
from utils.core.log import SCRIPT_LOG, LineHandler, setup_logging
from utils.core.seed import seed_everything
from utils.core.timing import StageTimer
from utils.datasets.fetch import fetch
from utils.plots.crops import crop_box
from utils.training import image_weights
from utils.training.schedule import lr_factor

DATASETS_DIR = ROOT.parent / "datasets"
LOGGING_NAME = SCRIPT_LOG.name
NCOLS: int | None = None  # width of progress bars: tqdm measures the terminal
NUM_THREADS = min(8, max(1, (os.cpu_count() or 1) - 1))
TQDM_BAR_FORMAT = "{l_bar}{bar:10}{r_bar}"

_STYLES = frozenset({"red", "green", "yellow", "blue", "magenta", "cyan", "bold"})
_NOT_IN_FILE_NAMES = str.maketrans(dict.fromkeys("!#$%&()*+,:;<=>?@^|¡¨´·¿€", "_"))
_UNUSED_COCO_CATEGORIES = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})  # of the numbers 1 to 90
_CLASSIFIER_SIDE = 224  # pixels of the square images that a second classifier takes
_CROP_GAIN, _CROP_PAD = 1.3, 30.0  # how much larger than its box the crop for that classifier is


def __getattr__(name: str) -> Any:
    """Return ``LOGGER`` or ``cv2``, and give the root logger a handler if it has none.

    Some scripts remove the handler that v6.1 installs on import; they import one of these two names.
    """
    served = {"LOGGER": SCRIPT_LOG, "cv2": opencv}
    if name not in served:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(LineHandler())
    return served[name]


# Logging and timing ---------------------------------------------------------------------------------------------------


def set_logging(name: str | None = None, verbose: bool = True) -> logging.Logger:
    """Send all log lines to stdout, from INFO up, or from WARNING up with ``verbose`` off."""
    setup_logging(logging.INFO if verbose else logging.WARNING)
    return logging.getLogger(name) if name else SCRIPT_LOG


def print_args(name: str, opt: Any) -> None:
    """Log the options of a script, an ``argparse.Namespace``, in one line."""
    SCRIPT_LOG.info("%s: %s", name, ", ".join(f"{key}={value}" for key, value in vars(opt).items()))


def colorstr(*words: str) -> str:
    """Return the last word in the styles before it, blue and bold by default: ``colorstr("red", "bold", "text")``.

    Styles are only applied when stdout is a terminal; unknown styles are ignored.
    """
    *styles, text = words
    known = [style.removeprefix("bright_") for style in styles if style.removeprefix("bright_") in _STYLES]
    return text if styles and not known else log.colorstr(text, *known)


class Profile:
    """``with Profile() as timer: ...`` times the body; ``@Profile()`` also prints the seconds of each call.

    Args:
        t: seconds to begin with.
        device: a GPU whose queue is finished before the clock is read.

    Attributes:
        dt: seconds of the latest body.
        t: seconds of all bodies.
    """

    def __init__(self, t: float = 0.0, device: torch.device | None = None) -> None:
        self.t, self.dt, self.device = t, 0.0, device

    def __enter__(self) -> Profile:
        self._timer = StageTimer(self.device)
        self._body = self._timer.stage("body")
        self._body.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._body.__exit__(None, None, None)
        self.dt = self._timer.seconds["body"]
        self.t += self.dt

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = function(*args, **kwargs)
            print(f"took {self.dt:.5f} s")
            return result

        return timed


def try_except(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function: an exception is logged, and the result is None."""

    @functools.wraps(func)
    def logging_errors(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except Exception as error:
            SCRIPT_LOG.error("%s: %s", func.__name__, error)
            return None

    return logging_errors


def methods(instance: Any) -> list[str]:
    """Names of the methods of an object or class, without those that begin with two underscores."""
    return [name for name, _ in inspect.getmembers(instance, callable) if not name.startswith("__")]


# Texts and files ------------------------------------------------------------------------------------------------------


def emojis(text: str = "") -> str:
    """Return the text, on Windows without characters beyond ASCII, which its consoles may not show."""
    return "".join(filter(str.isascii, text)) if sys.platform == "win32" else text


def clean_str(s: str) -> str:
    """Replace every character that is unusual in file names by an underscore."""
    return s.translate(_NOT_IN_FILE_NAMES)


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """``runs/exp``, then ``runs/exp2``, ``runs/exp3`` ...; see :func:`utils.core.files.increment_path`."""
    return files.increment_path(path, exist_ok, mkdir, sep=sep)


def get_latest_run(search_dir: str | Path = ".") -> str:
    """Path of the newest ``last*.pt`` at any depth of a folder, "" when there is none."""
    return str(max(Path(search_dir).rglob("last*.pt"), key=lambda path: path.stat().st_mtime, default=""))


def file_size(path: str | Path) -> float:
    """Megabytes (of 1,000,000 bytes) of a file, or of all files below a folder; 0 for a missing path."""
    place = Path(path)
    paths = [place] if place.is_file() else place.rglob("*")
    return sum(file.stat().st_size for file in paths if file.is_file()) / 1e6


def url2file(url: str) -> str:
    """Name of the file of an address, without query: ``https://host/a%20b.txt?c`` -> ``a b.txt``."""
    return Path(unquote(urlsplit(str(url)).path)).name


def download(
    url: str | Iterable[str],
    dir: str | Path = ".",
    unzip: bool = True,
    delete: bool = True,
    curl: bool = False,
    threads: int = 1,
) -> None:
    """Fetch one or several files into a folder and unpack archives there; existing files are kept.

    An archive is only kept when it is not unpacked; ``delete``, ``curl`` and ``threads`` have no effect.
    """
    for address in [url] if isinstance(url, str) else url:
        fetch(RemoteFile(address), Path(dir), unpack_archive=unzip)


def strip_optimizer(f: str | Path = "best.pt", s: str | Path = "") -> None:
    """Reduce a checkpoint to what detection needs, in place or as a new file ``s``."""
    if s:
        shutil.copyfile(f, s)
    SCRIPT_LOG.info("%s: stripped to %.1f MB", s or f, strip_checkpoint(Path(s or f)))


class _PathDumper(yaml.SafeDumper):
    """Writes paths as text."""


_PathDumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))


def yaml_save(file: str | Path = "data.yaml", data: dict[str, Any] | None = None) -> None:
    """Write a yaml file; paths in the data become text."""
    text = yaml.dump(data or {}, Dumper=_PathDumper, sort_keys=False, allow_unicode=True)
    files.write_atomic(Path(file), text.encode())


# Numbers and boxes ----------------------------------------------------------------------------------------------------


def init_seeds(seed: int = 0) -> None:
    """Seed Python, numpy and torch; 0 also requests repeatable GPU kernels, as in v6.1."""
    seed_everything(seed, deterministic=seed == 0 and torch.cuda.is_available())


def make_divisible(x: float, divisor: int | Tensor) -> int:
    """Round ``x`` up to a multiple of ``divisor``, or of its largest element when it is a tensor of strides."""
    return registry.make_divisible(x, int(divisor.max()) if isinstance(divisor, Tensor) else divisor)


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Half a cosine from ``y1`` at 0 to ``y2`` at ``steps``."""
    return lambda x: y2 + (y1 - y2) * lr_factor(x, steps, 0.0, cosine=True)  # type: ignore[arg-type]


def labels_to_class_weights(labels: Sequence[np.ndarray], nc: int = 80) -> Tensor:
    """Inverse frequency [nc] of each class in label arrays [n, 5+] (class first), with a sum of 1."""
    return torch.from_numpy(image_weights.class_weights(labels, nc)).float()


def labels_to_image_weights(
    labels: Sequence[np.ndarray], nc: int = 80, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """Sum [images] of the class weights of an image's objects; without ``class_weights`` each object counts 1."""
    weights = np.ones(nc) if class_weights is None else np.asarray(class_weights).reshape(nc)
    return image_weights.image_weights(labels, weights)


def coco80_to_coco91_class() -> list[int]:
    """COCO's category number of each of the 80 classes, in their order."""
    return [number for number in range(1, 91) if number not in _UNUSED_COCO_CATEGORIES]


def scale_coords(img1_shape: Sequence[float], coords: Any, img0_shape: Sequence[float], ratio_pad: Any = None) -> Any:
    """As :func:`utils.core.boxes.scale_coords`, but ``coords`` [n, 4] is changed in place and returned, as in v6.1."""
    coords[:, :4] = box_math.scale_coords(img1_shape, coords[:, :4], img0_shape, ratio_pad)
    return coords


def clip_coords(boxes: Any, shape: Sequence[float]) -> None:
    """Clip corners [n, 4] to an image of (height, width), in place as in v6.1."""
    boxes[:, :4] = box_math.clip_coords(boxes[:, :4], shape)


def apply_classifier(
    x: list[Tensor | None], model: nn.Module, img: Tensor, im0: np.ndarray | Sequence[np.ndarray]
) -> list[Tensor | None]:
    """Keep the detections whose class a second classifier confirms.

    Args:
        x: detections [n, 6] of each image: corners in pixels of ``img``, confidence, class; or None.
        model: [n, 3, 224, 224] RGB in 0..1 -> [n, classes] scores.
        img: [B, 3, H, W] input of the detector.
        im0: the original images, HWC BGR.

    Returns:
        ``x`` with the confirmed rows, whose boxes are in pixels of the original images.
    """
    originals = [im0] if isinstance(im0, np.ndarray) else im0
    for i, (rows, original) in enumerate(zip(x, originals)):
        if rows is None or not len(rows):
            continue
        scale_coords(img.shape[2:], rows[:, :4], original.shape)
        crops = [crop_box(original, box, _CROP_GAIN, _CROP_PAD, square=True) for box in rows[:, :4].tolist()]
        side = (_CLASSIFIER_SIDE, _CLASSIFIER_SIDE)
        inputs = [opencv.resize(crop if crop.size else original, side)[..., ::-1] for crop in crops]
        batch = torch.from_numpy(np.stack(inputs).transpose(0, 3, 1, 2).copy()).to(rows.device).float() / 255
        with torch.no_grad():
            confirmed = model(batch).argmax(1) == rows[:, 5].long()
        x[i] = rows[confirmed]
    return x
