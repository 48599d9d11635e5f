"""The options of each script: one frozen record per script, and the only place where an option is written down.

The names and defaults are those of YOLOv5 v6.1 unless a test table says otherwise. The metadata of a field carries
its flags and help; ``utils.config.cli`` makes the command line from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from utils.config.paths import ROOT
from utils.errors import InputError

IMAGE_SIZE_FLAGS = ("--imgsz", "--img", "--img-size")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
TASKS = ("train", "val", "test")
CACHES = ("ram", "disk")

NamedT = TypeVar("NamedT", bound="Named")


@dataclass(frozen=True)
class Flag:
    """How a field appears on the command line.

    ``names`` are the flags, ``convert`` turns one word into a value (None: a switch without a value), ``nargs`` and
    ``const`` have their argparse meaning, ``choices`` limits the values; a flag that may ``repeat`` adds to its values;
    a ``negatable`` switch has a ``--no-`` form as well.
    """

    names: tuple[str, ...]
    help: str
    convert: Callable[[str], Any] | None = None
    nargs: str | None = None
    const: Any = None
    choices: tuple[str, ...] | None = None
    repeat: bool = False
    negatable: bool = False


def option(
    default: Any,
    convert: Callable[[str], Any],
    flags: str | Sequence[str],
    help: str,
    *,
    nargs: str | None = None,
    const: Any = None,
    choices: tuple[str, ...] | None = None,
    repeat: bool = False,
) -> Any:
    """A dataclass field that takes a value on the command line."""
    names = (flags,) if isinstance(flags, str) else tuple(flags)
    flag = Flag(names=names, help=help, convert=convert, nargs=nargs, const=const, choices=choices, repeat=repeat)
    return field(default=default, metadata={"flag": flag})


def switch(name: str, help: str) -> Any:
    """A dataclass field that is False unless its flag is given."""
    return field(default=False, metadata={"flag": Flag(names=(name,), help=help)})


def yes_or_no(name: str, help: str) -> Any:
    """A dataclass field that is None until ``--name`` makes it True or ``--no-name`` makes it False."""
    return field(default=None, metadata={"flag": Flag(names=(name,), help=help, negatable=True)})


def number_or_name(word: str) -> int | str:
    """``word`` as a whole number if it is one."""
    return int(word) if word.isdecimal() else word


class Named:
    """Base of an options record that remembers in ``given`` which of its fields were named, whatever their values.

    So ``--resume --epochs 300`` is a wish although 300 is the default.
    """

    given: frozenset[str]

    def __new__(cls: type[NamedT], *_: Any, **values: Any) -> NamedT:
        record = object.__new__(cls)
        object.__setattr__(record, "given", frozenset(values))  # the record is frozen
        return record


def _at_least(flag: str, value: int | float, low: int) -> None:
    if value < low:
        raise InputError(f"{flag} {value} is too small; allowed is {low} or more")


def _fraction(flag: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{flag} {value} is out of range; allowed is 0 to 1")


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{flag} {value} is unknown; allowed is {', '.join(allowed)}")


def _check_download(download: bool, allow_scripts: bool, limit: int) -> None:
    _at_least("--download-limit", limit, 1)
    if allow_scripts and not download:
        raise InputError("--allow-scripts does nothing without --download; give both, or none")


def _plain_name(value: str) -> None:
    if not value:
        raise InputError("--name '' is empty; give the run a name, for example exp")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Named):
    """Options of ``train.py``.

    Raises:
        InputError: a value out of range, or two options that exclude each other; the message names the flags.
    """

    weights: str = option("", str, "--weights", "checkpoint to start from; empty: from scratch")
    cfg: str = option("", str, "--cfg", "model yaml; empty: the one inside --weights")
    data: str = option(str(ROOT / "data/digits.yaml"), str, "--data", "data yaml")
    hyp: str = option(str(ROOT / "data/hyps/hyp.scratch-low.yaml"), str, "--hyp", "hyper-parameter yaml")
    epochs: int = option(300, int, "--epochs", "passes over the training set")
    batch_size: int = option(16, int, "--batch-size", "pictures per batch")
    imgsz: int = option(640, int, IMAGE_SIZE_FLAGS, "side of the training pictures in pixels")
    rect: bool = switch("--rect", "batches of like aspect ratio instead of squares; no mosaic, no shuffling")
    resume: str | bool = option(
        False,
        str,
        "--resume",
        "go on with a run: its last.pt or folder, or nothing for the newest; with --epochs: extend it",
        nargs="?",
        const=True,
    )
    nosave: bool = switch("--nosave", "write only the final checkpoint")
    noval: bool = switch("--noval", "validate only after the last epoch")
    noautoanchor: bool = switch("--noautoanchor", "keep the anchors of the model, whatever the boxes")
    cache: str | None = option(
        None, str, "--cache", "keep the decoded pictures in memory or on disk", nargs="?", const="ram", choices=CACHES
    )
    cache_dir: str = option("", str, "--cache-dir", "folder for the caches of labels and pictures, for read-only data")
    image_weights: bool = switch("--image-weights", "draw pictures of badly recognised classes more often")
    device: str = option("", str, "--device", "cpu, 0 or 0,1; empty: the first GPU if there is one")
    multi_scale: bool = switch("--multi-scale", "vary the picture size from half to one and a half")
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    optimizer: str = option("SGD", str, "--optimizer", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, int, "--workers", "loader processes; 0: load in the main process")
    project: str = option(str(ROOT / "runs/train"), str, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    quad: bool = switch("--quad", "unite every four pictures of a batch to one of twice the size")
    cos_lr: bool = switch("--cos-lr", "cosine learning-rate schedule instead of a straight line")
    label_smoothing: float = option(0.0, float, "--label-smoothing", "epsilon of the class targets")
    patience: int = option(100, int, "--patience", "stop after this many epochs without a better fitness; 0: never")
    freeze: tuple[int | str, ...] = option(
        (0,),
        number_or_name,
        "--freeze",
        "one number: the first N layers; more: these layers; also ranges (0-9) and names (model.24, attention)",
        nargs="+",
    )
    save_period: int = option(-1, int, "--save-period", "keep a checkpoint every N epochs; below 1: none")
    save_steps: int = option(0, int, "--save-steps", "write last.pt every N batches as well, for long epochs; 0: no")
    skip_nonfinite: int = option(
        0, int, "--skip-nonfinite", "leave out up to N batches whose loss or gradient is not finite; 0: none"
    )
    amp: bool | None = yes_or_no("--amp", "mixed precision: float16 on a GPU (the default there), bfloat16 on a CPU")
    deterministic: bool = switch("--deterministic", "only GPU kernels that always add in the same order (slower)")
    seed: int = option(0, int, "--seed", "seed of everything that is drawn")
    tensorboard: bool = switch("--tensorboard", "write curves, routing and pictures for TensorBoard as well")
    download: bool = switch("--download", "fetch the pictures from the download: address of the data yaml if missing")
    allow_scripts: bool = switch("--allow-scripts", "with --download: run the script that stands under download:")
    download_limit: int = option(50, int, "--download-limit", "most GB that one download may have, packed or unpacked")
    modules: tuple[str, ...] = option(
        (), str, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        _at_least("--epochs", self.epochs, 0)
        _at_least("--batch-size", self.batch_size, 1)
        _at_least("--imgsz", self.imgsz, 32)
        _at_least("--workers", self.workers, 0)
        _at_least("--patience", self.patience, 0)
        _at_least("--seed", self.seed, 0)
        _at_least("--save-steps", self.save_steps, 0)
        _at_least("--skip-nonfinite", self.skip_nonfinite, 0)
        for layer in self.freeze:
            if isinstance(layer, int):
                _at_least("--freeze", layer, 0)
        _fraction("--label-smoothing", self.label_smoothing)
        _one_of("--optimizer", self.optimizer, OPTIMIZERS)
        _plain_name(self.name)
        _check_download(self.download, self.allow_scripts, self.download_limit)
        if self.quad and self.batch_size < 4:
            raise InputError(f"--quad makes one picture out of four; --batch-size {self.batch_size} has less")
        if self.nosave and self.save_steps:
            raise InputError("--nosave and --save-steps exclude each other; leave one out")
        if self.rect and self.image_weights:
            raise InputError("--rect and --image-weights exclude each other: rect fixes the order; leave one out")


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """Options of ``val.py``. Raises InputError naming the flag when a value is out of range."""

    data: str = option("", str, "--data", "data yaml; empty: the one recorded in the checkpoint, else digits")
    weights: tuple[str, ...] = option(
        (), str, "--weights", "checkpoint; several: an ensemble; none: the newest best.pt below runs/train", nargs="+"
    )
    batch_size: int = option(32, int, "--batch-size", "pictures per batch")
    imgsz: int = option(640, int, IMAGE_SIZE_FLAGS, "longer side of the pictures in pixels")
    conf_thres: float = option(0.001, float, "--conf-thres", "drop detections below this confidence")
    iou_thres: float = option(0.6, float, "--iou-thres", "IoU above which NMS takes two boxes for one object")
    task: str = option("val", str, "--task", "split to validate on", choices=TASKS)
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one")
    workers: int = option(8, int, "--workers", "loader processes; 0: load in the main process")
    cache_dir: str = option("", str, "--cache-dir", "folder for the label cache, for read-only data")
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    augment: bool = switch("--augment", "look at every picture in three sizes, once mirrored")
    verbose: bool = switch("--verbose", "print the figures of every class")
    save_txt: bool = switch("--save-txt", "write the detections as label files")
    save_conf: bool = switch("--save-conf", "with --save-txt: write the confidence as well")
    project: str = option(str(ROOT / "runs/val"), str, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    half: bool = switch("--half", "half precision on a GPU")
    download: bool = switch("--download", "fetch the pictures from the download: address of the data yaml if missing")
    allow_scripts: bool = switch("--allow-scripts", "with --download: run the script that stands under download:")
    download_limit: int = option(50, int, "--download-limit", "most GB that one download may have, packed or unpacked")
    modules: tuple[str, ...] = option(
        (), str, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        _at_least("--batch-size", self.batch_size, 1)
        _at_least("--imgsz", self.imgsz, 32)
        _at_least("--workers", self.workers, 0)
        _fraction("--conf-thres", self.conf_thres)
        _fraction("--iou-thres", self.iou_thres)
        _one_of("--task", self.task, TASKS)
        _plain_name(self.name)
        _check_download(self.download, self.allow_scripts, self.download_limit)


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """Options of ``detect.py``. Raises InputError naming the flag when a value is out of range."""

    weights: tuple[str, ...] = option(
        (), str, "--weights", "checkpoint; several: an ensemble; none: the newest best.pt below runs/train", nargs="+"
    )
    source: str = option(str(ROOT / "data/images"), str, "--source", "picture, folder or .txt list")
    imgsz: tuple[int, ...] = option(
        (640,), int, IMAGE_SIZE_FLAGS, "picture size in pixels: one side, or h w", nargs="+"
    )
    conf_thres: float = option(0.25, float, "--conf-thres", "drop detections below this confidence")
    iou_thres: float = option(0.45, float, "--iou-thres", "IoU above which NMS takes two boxes for one object")
    max_det: int = option(1000, int, "--max-det", "most detections in one picture")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one")
    view_img: bool = switch("--view-img", "show the results in a window")
    save_txt: bool = switch("--save-txt", "write the detections as label files")
    save_conf: bool = switch("--save-conf", "with --save-txt: write the confidence as well")
    save_crop: bool = switch("--save-crop", "write every detected object as a picture of its own")
    nosave: bool = switch("--nosave", "write no pictures")
    classes: tuple[int, ...] | None = option(None, int, "--classes", "keep only these class numbers", nargs="+")
    agnostic_nms: bool = switch("--agnostic-nms", "let boxes of different classes suppress each other")
    augment: bool = switch("--augment", "look at every picture in three sizes, once mirrored")
    visualize: bool = switch("--visualize", "write what every layer sees, as pictures and arrays")
    project: str = option(str(ROOT / "runs/detect"), str, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    line_thickness: int = option(3, int, "--line-thickness", "width of the box lines in pixels")
    hide_labels: bool = switch("--hide-labels", "draw boxes without labels")
    hide_conf: bool = switch("--hide-conf", "draw labels without the confidence")
    half: bool = switch("--half", "half precision on a GPU")
    modules: tuple[str, ...] = option(
        (), str, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        if len(self.imgsz) not in (1, 2):
            raise InputError(f"--imgsz takes one number, or height and width; {len(self.imgsz)} given")
        for side in self.imgsz:
            _at_least("--imgsz", side, 32)
        for index in self.classes or ():
            _at_least("--classes", index, 0)
        _at_least("--max-det", self.max_det, 1)
        _at_least("--line-thickness", self.line_thickness, 1)
        _fraction("--conf-thres", self.conf_thres)
        _fraction("--iou-thres", self.iou_thres)
        _plain_name(self.name)
        if self.visualize and len(self.weights) > 1:
            raise InputError(f"--visualize shows layers of one model; --weights names {len(self.weights)}: name one")


Options = TrainOptions | ValOptions | DetectOptions


def to_plain(options: Options) -> dict[str, Any]:
    """The options as plain values (tuples become lists), ready for a yaml or a checkpoint."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
