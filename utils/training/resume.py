"""The checkpoint of the run that is resumed: finding, checking and opening it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.yolo import Model
from utils.checkpoint import Checkpoint, load_checkpoint
from utils.checkpoint.detector import newest_checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.output import OutputFolder
from utils.training.resume_checks import check_run_fits, check_train_state
from utils.training.saver import RESUME_FILE

_NEW_KEYS = {"pictures": "images", "maps": "class_map"}  # names of older files in train_state


@dataclass(frozen=True)
class Resumed:
    """A run to resume.

    Attributes:
        path, checkpoint: the file and its content.
        extended: epochs or patience were given again, so an early stop no longer counts.
    """

    path: Path
    checkpoint: Checkpoint
    extended: bool = False

    @property
    def epochs_done(self) -> int:
        """Whole epochs before the checkpoint."""
        return int(self.checkpoint.train_state["epoch"]) + 1

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping ended the run, and it is not extended."""
        return bool(self.checkpoint.train_state.get("stopped_early")) and not self.extended


def open_run(resume: str | bool) -> tuple[Path, Checkpoint]:
    """Open the checkpoint of a run, ``resume.pt`` in place of a stripped ``last.pt``.

    Args:
        resume: a checkpoint or run folder; True: the newest run.

    Raises:
        FileNotFoundError: no such file.
        InputError: the file is damaged, or the run cannot be resumed.
    """
    path = Path(resume) if isinstance(resume, str) else newest_checkpoint(ROOT / "runs/train", "last.pt")
    if path.is_dir():
        path = OutputFolder(path).path("weights/last.pt", make=False)  # no link leads into the folder of another run
    if not path.is_file():
        raise FileNotFoundError(f"--resume {path}: no such file (searched at {path.absolute()})")
    try:
        checkpoint = _open_checked(path)
    except InputError as error:
        raise InputError(f"{error}; {_alternatives(path)}") from error
    full = path.with_name(RESUME_FILE)
    if not checkpoint.resumable and full.is_file() and not full.is_symlink():
        path, checkpoint = full, _open_checked(full)
    if not checkpoint.resumable:
        raise InputError(
            f"--resume {path}: this run is finished and {full.name} is not beside it, so it cannot be extended; "
            f"to train on, start a new one with --weights {path}"
        )
    return path, checkpoint


def _open_checked(path: Path) -> Checkpoint:
    """Load a checkpoint and check the kinds of its training state; loading checks the checksums."""
    checkpoint = load_checkpoint(path)
    state = checkpoint.train_state
    checkpoint.train_state = {_NEW_KEYS.get(key, key): value for key, value in state.items()}
    if checkpoint.resumable:
        try:
            check_train_state(checkpoint)
        except InputError as error:
            raise _damaged(path, error) from error
    return checkpoint


def same_model(resumed: Resumed, spec: DatasetSpec) -> Model:
    """Build the model of the run that is resumed, without its tensors.

    Raises:
        InputError: the data set has other classes.
    """
    checkpoint = resumed.checkpoint
    if list(spec.names) != checkpoint.names:
        names = ", ".join(checkpoint.names)
        raise InputError(f"--resume {resumed.path}: {spec.source} names other classes than this run has ({names})")
    model = Model({**checkpoint.model_yaml, "yaml_file": str(resumed.path)}, nc=checkpoint.nc)
    model.names = list(checkpoint.names)
    return model


def check_resumable(resumed: Resumed | None, model: Model, hyp: Hyp, optimizer: str) -> None:
    """Raise InputError: a part of the checkpoint does not fit the model (``check_run_fits``)."""
    if resumed is None:
        return
    try:
        check_run_fits(resumed.checkpoint, model, hyp, optimizer)
    except InputError as error:
        raise InputError(f"--resume {_damaged(resumed.path, error)}; {_alternatives(resumed.path)}") from error


def _damaged(path: Path, error: InputError) -> InputError:
    return InputError(f"{path}: not as this program writes it, or changed since: {error}")


def _alternatives(damaged: Path) -> str:
    """Say what can be resumed instead of a damaged file of the same folder."""
    usable: dict[Path, int] = {}
    for path in set(damaged.parent.glob("*.pt")) - {damaged}:
        with contextlib.suppress(InputError, OSError):
            checkpoint = _open_checked(path)
            if checkpoint.resumable:
                usable[path] = int(checkpoint.train_state["epoch"])
    if not usable:
        return "no other file beside it can be resumed; start again, with --weights if there is a best.pt"
    best = max(usable, key=lambda path: usable[path])
    return f"{best.name} beside it is undamaged and was saved after epoch {usable[best] + 1}: --resume {best}"


def check_work_left(resumed: Resumed, saved: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Check that a run is not finished, or is extended.

    Args:
        resumed: the run.
        saved, changed: its recorded options, and those given now.

    Raises:
        InputError: it is finished; the message says why it ended and how to extend it.
    """
    done, epochs = resumed.epochs_done, changed.get("epochs", saved["epochs"])
    if epochs < done:
        raise InputError(f"--resume {resumed.path} --epochs {epochs}: this run has done {done} already; give more")
    if resumed.path.name != RESUME_FILE:
        return  # even if all epochs are done, files may have to be stripped and best.pt to be evaluated
    if resumed.stopped_early:
        why = f"no better fitness for {counted(saved['patience'], 'epoch')}"
        how = f"--epochs N or --patience N (0: never stop) continues to epoch {saved['epochs']} or N, waiting anew"
    elif epochs == done:
        why, how = "all its epochs are done", f"--epochs N with N above {done} continues it"
    else:
        return
    raise InputError(
        f"--resume {resumed.path}: this run is finished: it ended after epoch {done} of {saved['epochs']}, {why}. "
        f"To extend it: {how}; learning rate and temperature follow the new number of epochs"
    )
