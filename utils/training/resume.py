"""What a run needs to go on exactly where it stopped: taking it down and putting it back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from models.user_modules import require_modules
from models.yolo import Model
from utils.checkpoint import Checkpoint, load_checkpoint
from utils.checkpoint.find import newest_checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.keywords import recorded_options
from utils.config.options import TrainOptions
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.output import OutputFolder
from utils.training.resume_checks import check_fits, check_notes
from utils.training.saver import RESUME_FILE

LOG = logging.getLogger(__name__)

# What may be different from the run that is resumed: where and how it runs, when it ends, but not what it computes.
CHANGEABLE = frozenset(
    {
        "resume", "epochs", "patience", "data", "device", "workers", "amp", "compile", "skip_nonfinite", "nosave",
        "noval", "save_period", "save_steps", "cache", "cache_dir", "tensorboard", "wandb", "entity",
        "upload_dataset", "bbox_interval", "mlflow", "modules", "download", "allow_scripts",
        "download_limit", "local_rank",
    }
)  # fmt: skip
# A file may not have anything fetched, run, or written elsewhere: these come from the command line only.
_NEVER_FROM_FILE = ("modules", "download", "allow_scripts", "download_limit", "local_rank", "cache_dir")
# Options that a file of an earlier version need not have recorded.
_LATER = frozenset(
    {
        "evolve", "evolve_sampler", "bucket", "cache_dir", "mosaic_from", "quad", "save_steps", "skip_nonfinite", "amp",
        "compile", "deterministic", "sync_bn", "local_rank", "tensorboard", "wandb", "entity", "upload_dataset",
        "bbox_interval", "artifact_alias", "mlflow", "download", "allow_scripts", "download_limit", "modules",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Resumed:
    """A run to go on with.

    Attributes:
        path, checkpoint: the file and what is in it.
        extended: epochs or patience were given anew, so an early stop does not count any more.
    """

    path: Path
    checkpoint: Checkpoint
    extended: bool = False

    @property
    def epochs_done(self) -> int:
        """Whole epochs behind the checkpoint."""
        return int(self.checkpoint.train_state["epoch"]) + 1

    @property
    def stopped_early(self) -> bool:
        """Patience was at an end, and nobody has asked to go on nevertheless."""
        return bool(self.checkpoint.train_state.get("stopped_early")) and not self.extended


def resume_options(options: TrainOptions) -> tuple[TrainOptions, Resumed | None]:
    """The options of the run that ``--resume`` names, and its checkpoint; unchanged and None without ``--resume``.

    Options named beside ``--resume`` replace those of the run where that leaves it the same run.

    Raises:
        FileNotFoundError: no such file, or no run to go on with.
        InputError: the file is damaged, there is nothing left to do, an option would make it another run, or its model
            has layers from files that ``--modules`` did not name again: a checkpoint may not have code run.
    """
    if not options.resume:
        return options, None
    path, checkpoint = _find(options.resume)
    require_modules(checkpoint.model_yaml, f"--resume {path}", checkpoint.options.get("modules", ()))
    saved, changed = same_run(path, checkpoint.options, options, CHANGEABLE)
    folder = path.resolve().parents[1]
    changed |= {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "resume": str(path)}
    resumed = Resumed(path, checkpoint, extended=bool({"epochs", "patience"} & options.given))
    _check_work_left(resumed, saved, changed)
    batches = checkpoint.train_state.get("position", {}).get("batches", 0)
    inside = f" and {counted(batches, 'batch')}" if batches else ""
    LOG.info("resuming %s after epoch %d%s of %d", path, resumed.epochs_done, inside, saved["epochs"])
    return TrainOptions(**(saved | changed)), resumed


def same_run(
    path: Path, recorded: Mapping[str, Any], options: TrainOptions, changeable: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recorded options of the run at ``path``, and what replaces some of them: the ``changeable`` ones given now.

    Raises:
        InputError: an option given now would make it another run.
    """
    saved = recorded_options(TrainOptions, recorded, str(path))
    if missing := sorted({field.name for field in fields(TrainOptions)} - saved.keys() - _LATER):
        raise InputError(f"--resume {path}: the option {missing[0]} is not recorded there")
    given = {name: getattr(options, name) for name in options.given}
    for name in sorted(given.keys() - changeable):
        if name in saved and given[name] != saved[name]:
            raise InputError(
                f"--resume {path}: this run has --{name.replace('_', '-')} {saved[name]}, not {given[name]}, and to "
                "resume is to go on with the same run; leave the option out, or start a new run with --weights"
            )
    if saved.get("cache_dir") and "cache_dir" not in given:
        LOG.info("this run kept its caches in %s: --cache-dir uses them again", saved["cache_dir"])
    changed = {name: given[name] for name in given.keys() & changeable}
    return saved, changed | {name: getattr(options, name) for name in _NEVER_FROM_FILE}


def _find(resume: str | bool) -> tuple[Path, Checkpoint]:
    """The file that is meant, ``resume.pt`` in place of a stripped ``last.pt``, and its content."""
    path = Path(resume) if isinstance(resume, str) else newest_checkpoint(ROOT / "runs/train", "last.pt")
    if path.is_dir():
        path = OutputFolder(path).path("weights/last.pt", make=False)  # no link leads into the folder of another run
    if not path.is_file():
        raise FileNotFoundError(f"--resume {path}: no such file (looked at {path.absolute()})")
    try:
        checkpoint = _load(path)
    except InputError as error:
        raise InputError(f"{error}; {_alternatives(path)}") from error
    full = path.with_name(RESUME_FILE)
    if not checkpoint.resumable and full.is_file() and not full.is_symlink():
        path, checkpoint = full, _load(full)
    if not checkpoint.resumable:
        raise InputError(
            f"--resume {path}: this run is finished and {full.name} is not beside it, so it cannot be extended; "
            f"to train on, start a new one with --weights {path}"
        )
    return path, checkpoint


def _load(path: Path) -> Checkpoint:
    """A checkpoint whose notes of its run are of the right kinds; that its checksums hold is seen as it is read."""
    checkpoint = load_checkpoint(path)
    if checkpoint.resumable:
        try:
            check_notes(checkpoint)
        except InputError as error:
            raise _spoilt(path, error) from error
    return checkpoint


def same_model(resumed: Resumed, spec: DatasetSpec) -> Model:
    """The model of the run that is resumed, whose tensors are put in later."""
    checkpoint = resumed.checkpoint
    if list(spec.names) != checkpoint.names:
        names = ", ".join(checkpoint.names)
        raise InputError(f"--resume {resumed.path}: {spec.source} names other classes than this run has ({names})")
    model = Model({**checkpoint.model_yaml, "yaml_file": str(resumed.path)}, nc=checkpoint.nc)
    model.names = list(checkpoint.names)
    return model


def check_resumable(resumed: Resumed | None, model: Model, hyp: Hyp, optimizer: str) -> None:
    """Raise InputError: something in a checkpoint does not fit the model that the run is about, see ``check_fits``."""
    if resumed is None:
        return
    try:
        check_fits(resumed.checkpoint, model, hyp, optimizer)
    except InputError as error:
        raise InputError(f"--resume {_spoilt(resumed.path, error)}; {_alternatives(resumed.path)}") from error


def _spoilt(path: Path, error: InputError) -> InputError:
    return InputError(f"{path}: not as this program writes it, or changed since: {error}")


def _alternatives(damaged: Path) -> str:
    """What can be resumed instead of a damaged file of the same folder."""
    usable: dict[Path, int] = {}
    for path in set(damaged.parent.glob("*.pt")) - {damaged}:
        with contextlib.suppress(InputError, OSError):
            checkpoint = _load(path)
            if checkpoint.resumable:
                usable[path] = int(checkpoint.train_state["epoch"])
    if not usable:
        return "no other file beside it can be resumed; start again, with --weights if there is a best.pt"
    best = max(usable, key=lambda path: usable[path])
    return f"{best.name} beside it is whole and stands after epoch {usable[best] + 1}: --resume {best}"


def _check_work_left(resumed: Resumed, saved: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Refuse to resume a finished run without a wish to extend it, saying why it ended and how to do that."""
    done, epochs = resumed.epochs_done, changed.get("epochs", saved["epochs"])
    if epochs < done:
        raise InputError(f"--resume {resumed.path} --epochs {epochs}: this run has done {done} already; give more")
    if resumed.path.name != RESUME_FILE:
        return  # if all epochs are done, the end of the run was not: files to strip, a model to score
    if resumed.stopped_early:
        why = f"no better fitness for {counted(saved['patience'], 'epoch')}"
        how = f"--epochs N or --patience N (0: never stop) goes on to epoch {saved['epochs']} or N, waiting anew"
    elif epochs == done:
        why, how = "all its epochs are done", f"--epochs N with N above {done} trains on"
    else:
        return
    raise InputError(
        f"--resume {resumed.path}: this run is finished: it ended after epoch {done} of {saved['epochs']}, {why}. "
        f"To extend it: {how}; learning rate and temperature follow the new number of epochs"
    )
