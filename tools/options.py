"""Options of the commands. Nothing here imports torch, so that ``--help`` and a wrong option are answered at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.config.dataset_spec import DATASET_FORMATS, SPLITS
from utils.config.export_options import EXPORT_FORMATS, UNAVAILABLE_FORMATS, ExportOptions
from utils.config.flags import (
    IMAGE_SIZE_FLAGS,
    at_least,
    check_image_size,
    fraction,
    image_size_option,
    option,
    path,
    plain_name,
    switch,
)
from utils.config.paths import ROOT
from utils.core.errors import InputError, suggestion

FRACTIONS = (0.8, 0.1, 0.1)  # of tools.split
_MOST_FOLDS = 1000
PROFILED_CFG = "yolov5n_dynamic.yaml"
EVERY_FORMAT = (*EXPORT_FORMATS, *UNAVAILABLE_FORMATS)


def project_option(folder: str) -> Any:
    """The field of ``--project``: a folder below the repository."""
    return option(str(ROOT / folder), path, "--project", "folder of the runs")


@dataclass(frozen=True, kw_only=True)
class ModelCommandOptions:
    """Base of the options of a command that runs a model. Raises InputError naming the flag of a wrong value."""

    imgsz: int | None = image_size_option("side of the images in pixels")
    batch_size: int = option(1, int, "--batch-size", "images per call")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one", may_be_empty=True)
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        check_image_size(self.imgsz)
        at_least("--batch-size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True)
class ModelRunOptions(ModelCommandOptions):
    """As ``ModelCommandOptions``, for a command that writes a run folder."""

    project: str = project_option("runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")

    def __post_init__(self) -> None:
        super().__post_init__()
        plain_name(self.name)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of ``python -m tools.check``. Raises InputError naming the flag when a value is out of range."""

    data: str = option(str(ROOT / "data/digits.yaml"), path, "--data", "data yaml")
    task: tuple[str, ...] = option(
        (), str, "--task", "splits to check; none: all that the yaml names", nargs="+", choices=SPLITS
    )
    imgsz: int = option(640, int, IMAGE_SIZE_FLAGS, "size of training in pixels, for which boxes are too small")
    decode: bool = switch("--decode", "decode every image in full, to find damage in the middle of a file")
    workers: int = option(8, int, "--workers", "files read at a time; 0: one")
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    cache_dir: str = option("", path, "--cache-dir", "folder for the label cache; without it: beside the labels")
    report: str = option("", path, "--report", "folder to write into; without it: runs/check/exp, numbered when taken")

    def __post_init__(self) -> None:
        for flag, value, low in (("--imgsz", self.imgsz, 32), ("--workers", self.workers, 0)):
            if value < low:
                raise InputError(f"{flag} {value} is too small; allowed is {low} or more")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of ``python -m tools.convert``. Raises InputError naming the flag that is missing or at odds."""

    source: str = option("", path, "--source", "data yaml, COCO .json, CVAT .xml, or a folder (see above)")
    to: str = option("yolo", str, "--to", "format to write", choices=DATASET_FORMATS)
    output: str = option("", path, "--output", "folder to write into; it must be new or empty")
    names: str = option("", path, ("--names", "--data"), "yaml whose names: are the classes, in their order")
    images: str = option("", path, "--images", "folder with the images of COCO or VOC annotations, if not found")
    copy_images: bool = switch("--copy-images", "copy the images into the output folder")
    link: bool = switch("--link", "put links to the images into the output folder")
    exist_ok: bool = switch("--exist-ok", "write into a folder that has files in it, over files of the same name")

    def __post_init__(self) -> None:
        for flag, value in (("--source", self.source), ("--output", self.output)):
            if not value:
                raise InputError(f"{flag} is missing")
        if self.copy_images and self.link:
            raise InputError("--copy-images and --link exclude each other; give one")


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Options of ``python -m tools.split``. Raises InputError naming the flag when a value cannot be."""

    source: str = option("", path, "--source", "folder of images, .txt list of them, or data yaml")
    pool: tuple[str, ...] = option(
        SPLITS, str, "--pool", "splits of a data yaml to throw together first, as far as it has them", nargs="+"
    )
    names: tuple[str, ...] = option((), str, "--names", "class names; none: those of the data yaml", nargs="+")
    fractions: tuple[float, ...] = option(
        (), float, "--fractions", "shares of train and val, or of train, val and test; none: 0.8 0.1 0.1", nargs="+"
    )
    kfold: int = option(0, int, "--kfold", "make this many folds instead: each is val once and train otherwise")
    stratify: bool = switch("--stratify", "give every class the same share in all lists, as far as possible")
    group_by: str = option("", str, "--group-by", "regular expression; equal group 1 in the file name: one list")
    seed: int = option(0, int, "--seed", "seed of the draw")
    output: str = option("", path, "--output", "folder of the lists and yamls")
    exist_ok: bool = switch("--exist-ok", "replace lists and yamls that are there")

    def __post_init__(self) -> None:
        for flag, text in (("--source", self.source), ("--output", self.output)):
            if not text:
                raise InputError(f"{flag} is missing; see --help")
        for split in self.pool:
            if split not in SPLITS:
                raise InputError(
                    f"--pool {split} is unknown{suggestion(split, SPLITS)}; allowed is {', '.join(SPLITS)}"
                )
        if self.kfold and self.fractions:
            raise InputError("--kfold and --fractions exclude each other: folds are of equal size; leave one out")
        if self.kfold < 0 or self.kfold == 1:
            raise InputError(f"--kfold {self.kfold} is too small; allowed is 2 or more")
        if self.kfold > _MOST_FOLDS:
            raise InputError(f"--kfold {self.kfold} is too large; allowed is up to {_MOST_FOLDS}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed} is too small; allowed is 0 or more")
        self._check_fractions(self.fractions or FRACTIONS)

    @staticmethod
    def _check_fractions(given: Sequence[float]) -> None:
        text = " ".join(f"{fraction:g}" for fraction in given)
        if len(given) not in (2, 3):
            raise InputError(f"--fractions {text}: give two numbers (train, val) or three (train, val, test)")
        if not all(fraction > 0 for fraction in given):
            raise InputError(f"--fractions {text}: each must be above 0; for no test list give two numbers")
        if not math.isclose(sum(given), 1.0, abs_tol=1e-6):
            raise InputError(f"--fractions {text}: the sum is {sum(given):g}, it must be 1")

    @property
    def parts(self) -> dict[str, float]:
        """Share of the images by the name of each part; the parts of ``--kfold`` are fold0, fold1 ..."""
        if self.kfold:
            return {f"fold{i}": 1 / self.kfold for i in range(self.kfold)}
        return dict(zip(SPLITS, self.fractions or FRACTIONS))


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """Options of ``python -m tools.preview``. Raises InputError naming the flag when a value cannot be."""

    data: str = option(str(ROOT / "data/digits.yaml"), path, "--data", "data yaml")
    hyp: str = option(str(ROOT / "data/hyps/hyp.scratch-low.yaml"), path, "--hyp", "hyper-parameter yaml")
    n: int = option(16, int, "--n", "images to draw; with more than the set has, some come again in a later epoch")
    imgsz: int = option(640, int, IMAGE_SIZE_FLAGS, "side of the training images in pixels")
    seed: int = option(0, int, "--seed", "seed of the choice and of the augmentations, as train.py's")
    task: str = option("train", str, "--task", "split to look at", choices=SPLITS)
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    output: str = option(str(ROOT / "runs/preview"), path, "--output", "folder of the two grids")
    exist_ok: bool = switch("--exist-ok", "replace grids that are there")

    def __post_init__(self) -> None:
        for flag, value, low in (("--n", self.n, 1), ("--imgsz", self.imgsz, 32), ("--seed", self.seed, 0)):
            if value < low:
                raise InputError(f"{flag} {value} is too small; allowed is {low} or more")
        if self.task not in SPLITS:
            raise InputError(
                f"--task {self.task} is unknown{suggestion(self.task, SPLITS)}; allowed is {', '.join(SPLITS)}"
            )
        if not self.output:
            raise InputError("--output is empty; give a folder")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ModelRunOptions):
    """Options of ``python -m tools.compare``."""

    models: tuple[str, ...] = option(
        (), str, "models", "model yamls (a path, or a bare name of one below models/) or checkpoints (.pt)", nargs="*"
    )
    weights: tuple[str, ...] = option((), path, "--weights", "checkpoints to compare as well", nargs="+")
    nc: int = option(80, int, "--nc", "classes of the models that are built from a yaml")
    repeats: int = option(20, int, "--repeats", "timed calls of every model")
    notrain: bool = switch("--notrain", "skip the training step")
    markdown: bool = switch("--markdown", "print the table as markdown")
    project: str = project_option("runs/compare")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("--nc", self.nc, 1)
        at_least("--repeats", self.repeats, 1)
        if not self.models and not self.weights:
            raise InputError("no model named; give model yamls or checkpoints, for example yolov5n.yaml")


@dataclass(frozen=True, kw_only=True)
class RoutingOptions(ModelRunOptions):
    """Options of ``python -m tools.routing``."""

    weights: str = option("", path, "--weights", "checkpoint; without it: the newest best.pt below runs/train")
    data: str = option("", path, "--data", "data yaml; without it: the one recorded in the checkpoint, else digits")
    task: str = option("val", str, "--task", "split to use", choices=SPLITS)
    imgsz: int | None = image_size_option("longer side of the images in pixels")
    batch_size: int = option(16, int, "--batch-size", "images per batch")
    workers: int = option(8, int, "--workers", "workers of the data loader; 0: load in the main process")
    project: str = project_option("runs/routing")
    foreign: bool = switch("--foreign", "evaluate the model with the kernel weights of other images too")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("--workers", self.workers, 0)


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(ModelCommandOptions):
    """Options of ``python -m tools.profile``."""

    cfg: str = option("", str, "--cfg", f"model yaml; with no --weights either: {PROFILED_CFG}")
    weights: str = option("", path, "--weights", "checkpoint whose model is measured")
    repeats: int = option(10, int, "--repeats", "timed runs, of which the median counts")
    fuse: bool = switch("--fuse", "fold the norms into the convolutions first, as val and detect do")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("--repeats", self.repeats, 1)
        if self.cfg and self.weights:
            raise InputError("--cfg and --weights exclude each other: a checkpoint brings its own yaml; drop one")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(ModelRunOptions):
    """Options of ``python -m tools.benchmark``."""

    weights: str = option("", path, "--weights", "checkpoint; without it: the newest best.pt below runs/train")
    data: str = option("", path, "--data", "data yaml; without it: the one recorded in the checkpoint, else digits")
    include: tuple[str, ...] = option(
        (), str, "--include", f"formats; none: all of {', '.join(EXPORT_FORMATS)}", nargs="+"
    )
    half: bool = switch("--half", "half precision")
    device: str = option("cpu", str, "--device", "cpu, or the number of a GPU")
    hard_fail: float | None = option(
        None,
        float,
        "--hard-fail",
        "exit with 1 if a format fails or its mAP@.5:.95 is below this (0)",
        nargs="?",
        const=0.0,
    )
    cache_dir: str = option("", path, "--cache-dir", "folder for the label cache, for read-only data")
    project: str = project_option("runs/benchmarks")

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction("--hard-fail", self.hard_fail or 0.0)
        self.export_options("", "")  # checks the formats

    def export_options(self, data: str, output: str) -> ExportOptions:
        """The options of ``export.py`` for the same work."""
        return ExportOptions(
            imgsz=(self.imgsz,) if self.imgsz else (),
            batch_size=self.batch_size,
            include=self.include or EVERY_FORMAT,
            half=self.half,
            data=data,
            output=output,
            cache_dir=self.cache_dir,
        )


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of ``python -m tools.study``. Raises InputError naming the flag when a value is out of range."""

    plan: str = option(str(ROOT / "tools/study/plan.yaml"), path, "--plan", "yaml with arms, data sets and phases")
    output: str = option(str(ROOT / "runs/study"), path, "--output", "folder of the runs, data sets and results")
    jobs: int = option(1, int, "--jobs", "runs side by side, each on one core")
    phases: tuple[str, ...] = option((), str, "--phases", "only these phases of the plan", nargs="+")
    list: bool = switch("--list", "show the phases and their runs, and start nothing")
    summary: bool = switch("--summary", "tables and charts of the finished runs, and start nothing")

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InputError(f"--jobs {self.jobs} is too small; allowed is 1 or more")
