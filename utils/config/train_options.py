"""The options of ``train.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from utils.config.flags import (
    CACHES,
    MOSAIC_SOURCES,
    OPTIMIZERS,
    SAMPLERS,
    Named,
    at_least,
    check_download,
    check_image_size,
    fraction,
    image_size_option,
    number_or_name,
    one_of,
    option,
    path,
    plain_name,
    switch,
    yes_or_no,
)
from utils.config.paths import ROOT, TRAIN_RUNS
from utils.core.errors import InputError

if TYPE_CHECKING:  # reading hyper-parameters needs yaml, which --help should not wait for
    from utils.config.hyp import Hyp

AUTO = -1  # --batch-size: as many as fit into memory


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Named):
    """Options of ``train.py``.

    Raises:
        InputError: a value out of range, or two options that exclude each other; the message names the flags.
    """

    weights: str = option("", path, "--weights", "checkpoint to start from; empty: from scratch", may_be_empty=True)
    cfg: str = option("", path, "--cfg", "model yaml; empty: the one inside --weights", may_be_empty=True)
    data: str = option(str(ROOT / "data/digits.yaml"), path, "--data", "data yaml")
    hyp: str = option(str(ROOT / "data/hyps/hyp.scratch-low.yaml"), path, "--hyp", "hyper-parameter yaml")
    epochs: int = option(300, int, "--epochs", "passes over the training set")
    batch_size: int = option(
        16, int, "--batch-size", "images per batch, of all processes together; -1: as many as fit into memory"
    )
    imgsz: int | None = image_size_option("side of the training images in pixels")
    rect: bool = switch("--rect", "batches of like aspect ratio instead of squares; no mosaic, no shuffling")
    resume: str | bool = option(
        False,
        path,
        "--resume",
        "resume a run: its last.pt or folder, or nothing for the newest; with --epochs: extend it",
        nargs="?",
        const=True,
    )
    nosave: bool = switch("--nosave", "write only the final checkpoint")
    noval: bool = switch("--noval", "validate only after the last epoch")
    noautoanchor: bool = switch("--noautoanchor", "keep the anchors of the model, whatever the boxes")
    evolve: int | None = option(
        None,
        int,
        "--evolve",
        "search hyper-parameters over N trials, each a training run (300 if only named)",
        nargs="?",
        const=300,
    )
    evolve_sampler: str = option(
        "genetic",
        str,
        "--evolve-sampler",
        "genetic: mutate the best so far, as v6.1; tpe: over the whole ranges",
        choices=SAMPLERS,
    )
    bucket: str = option(
        "", str, "--bucket", "of v6.1, refused: nothing is exchanged with a cloud bucket", may_be_empty=True
    )
    cache: str | None = option(
        None, str, "--cache", "keep the decoded images in memory or on disk", nargs="?", const="ram", choices=CACHES
    )
    cache_dir: str = option("", path, "--cache-dir", "folder for the caches of labels and images, for read-only data")
    mosaic_from: str = option(
        "recent",
        str,
        "--mosaic-from",
        "a mosaic joins an image to others decoded shortly before, or (all, as v6.1) to any of the data set",
        choices=MOSAIC_SOURCES,
    )
    image_weights: bool = switch("--image-weights", "draw images of badly recognised classes more often")
    device: str = option("", str, "--device", "cpu, 0 or 0,1; empty: the first GPU if there is one", may_be_empty=True)
    multi_scale: bool = switch("--multi-scale", "vary the image size from half to one and a half")
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    optimizer: str = option("SGD", str, "--optimizer", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, int, "--workers", "workers of each training process; 0: load images in that itself")
    project: str = option(str(TRAIN_RUNS), path, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    quad: bool = switch("--quad", "unite every four images of a batch to one of twice the size")
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
        0, int, "--skip-nonfinite", "skip up to N batches whose loss or gradient is not finite; 0: none"
    )
    amp: bool | None = yes_or_no("--amp", "mixed precision: float16 on a GPU (the default there), bfloat16 on a CPU")
    compile: bool = switch("--compile", "torch.compile; not used, with a warning, if it computes anything else")
    deterministic: bool = switch("--deterministic", "on a GPU too, always add in the same order (slower)")
    seed: int = option(0, int, "--seed", "seed of everything that is drawn")
    sync_bn: bool = switch("--sync-bn", "batch norm over the images of all processes (torchrun starts several)")
    local_rank: int = option(
        -1, int, ("--local_rank", "--local-rank"), "number of the process here; the launcher gives it, not you"
    )
    tensorboard: bool = switch("--tensorboard", "write curves, routing and images for TensorBoard as well")
    wandb: bool = switch("--wandb", "write an offline run for Weights & Biases as well; nothing is sent")
    entity: str | None = option(None, str, "--entity", "with --wandb: the team the run belongs to")
    upload_dataset: str | bool = option(
        False,
        str,
        "--upload_dataset",
        "with --wandb: the images and labels as artifacts, or only those of val",
        nargs="?",
        const=True,
        choices=("val",),
    )
    bbox_interval: int = option(
        -1, int, "--bbox_interval", "with --wandb: images with boxes every N epochs; -1: ten times a run; 0: never"
    )
    artifact_alias: str = option(
        "latest", str, "--artifact_alias", "of v6.1, refused: data sets are read from files, not from W&B"
    )
    mlflow: bool = switch("--mlflow", "write into an MLflow database in the run folder as well")
    download: bool = switch("--download", "fetch missing files: official weights (yolov5n.pt), images of the data yaml")
    allow_scripts: bool = switch("--allow-scripts", "with --download: run the script that stands under download:")
    download_limit: int = option(50, int, "--download-limit", "most GB that one download may have, packed or unpacked")
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        at_least("--epochs", self.epochs, 0)
        if self.batch_size != AUTO:
            at_least("--batch-size", self.batch_size, 1)
        check_image_size(self.imgsz)
        at_least("--workers", self.workers, 0)
        at_least("--patience", self.patience, 0)
        at_least("--seed", self.seed, 0)
        at_least("--save-steps", self.save_steps, 0)
        at_least("--skip-nonfinite", self.skip_nonfinite, 0)
        for layer in self.freeze:
            if isinstance(layer, int):
                at_least("--freeze", layer, 0)
        fraction("--label-smoothing", self.label_smoothing)
        one_of("--optimizer", self.optimizer, OPTIMIZERS)
        if isinstance(self.resume, str) and not self.resume.strip():
            raise InputError("--resume is given an empty text; name a last.pt or a run, or give --resume alone")
        one_of("--mosaic-from", self.mosaic_from, MOSAIC_SOURCES)
        plain_name(self.name)
        self._check_evolve()
        self._check_wandb()
        check_download(self.download, self.allow_scripts, self.download_limit)
        if self.quad and self.batch_size < 4 and self.batch_size != AUTO:
            raise InputError(f"--quad makes one image out of four; --batch-size {self.batch_size} has less")
        if self.nosave and self.save_steps:
            raise InputError("--nosave and --save-steps exclude each other; omit one")
        if self.nosave and self.save_period > 0:
            raise InputError("--nosave and --save-period exclude each other; omit one")
        if self.rect and self.image_weights:
            raise InputError("--rect and --image-weights exclude each other: rect fixes the order; omit one")
        for flag, given in (("--rect", self.rect), ("--multi-scale", self.multi_scale)):
            if self.compile and given:
                raise InputError(f"--compile and {flag} exclude each other: each size would be compiled; omit one")

    def without_effect(self, hyp: Hyp, nc: int) -> list[str]:
        """Return a line for each option that changes nothing together with the others; none for a resumed run.

        Args:
            hyp: hyper-parameters of the run.
            nc: number of classes.
        """
        lines: list[str] = []
        if self.resume:
            return lines
        if self.noval and self.evolve is None and "patience" in self.given and self.patience:
            lines.append("--patience has no effect with --noval: there is no fitness to wait for")
        if hyp.label_smoothing and nc == 1:
            lines.append("label smoothing has no effect with a single class: there is no class loss")
        if "mosaic_from" in self.given and (self.rect or not hyp.mosaic):
            cause = "--rect" if self.rect else f"mosaic: 0 in {self.hyp}"
            lines.append(f"--mosaic-from has no effect with {cause}: there are no mosaics")
        return lines

    def _check_evolve(self) -> None:
        one_of("--evolve-sampler", self.evolve_sampler, SAMPLERS)
        if self.bucket:
            raise InputError(
                f"--bucket {self.bucket}: nothing is exchanged with a cloud bucket here; copy evolve.csv yourself: "
                "--evolve --exist-ok continues from one that is alone in its run folder"
            )
        if self.evolve is None:
            if self.evolve_sampler != "genetic":
                raise InputError(f"--evolve-sampler {self.evolve_sampler} does nothing without --evolve")
            return
        at_least("--evolve", self.evolve, 1)
        if self.batch_size == AUTO:
            raise InputError("--evolve with --batch-size -1: every trial could get another size; give a number")
        if self.epochs < 1:
            raise InputError("--evolve with --epochs 0: nothing would be trained, so nothing could be compared")
        if self.save_period > 0 or self.save_steps:
            raise InputError("--evolve saves no checkpoints; omit --save-period and --save-steps")

    def _check_wandb(self) -> None:
        at_least("--bbox_interval", self.bbox_interval, -1)
        if self.upload_dataset not in (False, True, "val"):
            raise InputError(f"--upload_dataset {self.upload_dataset} is unknown; allowed is val, or nothing for all")
        if self.artifact_alias != "latest":
            raise InputError(
                f"--artifact_alias {self.artifact_alias} chooses a version of a data set stored at W&B, and "
                "nothing is fetched from there; name the files with --data"
            )
        changed = {
            "--entity": self.entity is not None,
            "--upload_dataset": bool(self.upload_dataset),
            "--bbox_interval": self.bbox_interval != -1,
        }
        if not self.wandb and any(changed.values()):
            named = ", ".join(flag for flag, is_changed in changed.items() if is_changed)
            raise InputError(f"{named}: does nothing without --wandb; give both, or none")
