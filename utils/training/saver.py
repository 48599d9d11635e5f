"""Writing checkpoint files: a full disk causes a warning, and the run continues."""

from __future__ import annotations

import copy
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from models.user_modules import modules_argument
from utils.checkpoint import Checkpoint, save_checkpoint
from utils.checkpoint.format import strip_checkpoint
from utils.config.train_slices import FolderOptions, SaveOptions
from utils.core.files import increment_path, write_atomic
from utils.core.output import OutputFolder, lock_folder

LOG = logging.getLogger(__name__)
RESUME_FILE = "resume.pt"  # beside last.pt of a finished run: what --resume needs to extend it


class Saver:
    """Writes the checkpoints of a run; one that cannot be written is kept in memory and written with the next.

    Args:
        folder: of the run.
        options: which checkpoints are written.
        recorded: all options of the run as plain values, for the checkpoints.

    Attributes:
        unwritten: checkpoints that could not be written, by file.
        written: files that have been written at least once.
    """

    def __init__(self, folder: Path, options: SaveOptions, recorded: Mapping[str, Any]) -> None:
        self.folder, self.options, self.recorded = folder, options, recorded
        self.unwritten: dict[Path, Checkpoint] = {}
        self.written: set[Path] = set()

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "weights/last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best fitness."""
        return self.folder / "weights/best.pt"

    def skips_epoch(self, final: bool) -> bool:
        """Whether ``--nosave`` drops the checkpoint of an epoch; of a trial of ``--evolve`` it drops the final one."""
        return self.options.nosave and (not final or self.options.evolve is not None)

    def due_in_epoch(self, batches: int) -> bool:
        """Whether ``--save-steps`` wants a checkpoint after so many batches of an epoch."""
        return self.options.save_steps > 0 and batches % self.options.save_steps == 0

    def write_epoch(self, checkpoint: Checkpoint, epoch: int, best: bool) -> bool:
        """Write the files of an epoch.

        Returns:
            False when last.pt could not be written.
        """
        self.retry(self.last)
        if best:
            self.write(self.best, checkpoint)
        if self.options.save_period > 0 and (epoch + 1) % self.options.save_period == 0:
            self.write(self.folder / f"weights/epoch{epoch}.pt", checkpoint)
        return self.write(self.last, checkpoint)

    def write(self, path: Path, checkpoint: Checkpoint) -> bool:
        """Write a file, or warn and keep its content; an older file is never damaged.

        Returns:
            Whether it was written.
        """
        try:
            save_checkpoint(path, checkpoint)
        except OSError as error:
            old = "the older file is undamaged" if path.exists() else "there is none yet"
            LOG.warning("%s could not be written (%s); %s. The run continues: make room!", path, error.strerror, old)
            self.unwritten[path] = copy.deepcopy(checkpoint)  # its tensors are those in training
            return False
        self.unwritten.pop(path, None)
        self.written.add(path)
        return True

    def retry(self, *replaced: Path) -> bool:
        """Write what could not be written before, except files that are about to be ``replaced``.

        Returns:
            Whether nothing is left.
        """
        for path, checkpoint in list(self.unwritten.items()):
            if path not in replaced:
                self.write(path, checkpoint)
        return not self.unwritten


def keep_resumable(last: Path) -> None:
    """Copy the last.pt of a finished run, before it is stripped, to ``resume.pt``, with which it can be extended."""
    try:
        write_atomic(last.with_name(RESUME_FILE), last.read_bytes())
    except OSError as error:
        LOG.warning("no room for %s (%s): this run cannot be extended", last.with_name(RESUME_FILE), error.strerror)


def strip(path: Path) -> None:
    """Reduce a checkpoint to what its use requires; without room for that it stays as it is."""
    try:
        LOG.info("%s: stripped to %.1f MB", path, strip_checkpoint(path))
    except OSError as error:
        LOG.warning("%s stays as large as it is (%s)", path, error.strerror)


def resume_command(path: Path, model_yaml: Mapping[str, Any], launcher: str = "python") -> str:
    """Return the command line that resumes the run of a checkpoint."""
    return f"{launcher} train.py --resume {shlex.quote(str(path))}{modules_argument(model_yaml)}"


def remove_drafts(folder: Path) -> None:
    """Remove unfinished files of a process that was killed; each is as large as a checkpoint."""
    for draft in folder.glob(".*.pt.*.tmp"):
        draft.unlink(missing_ok=True)


def make_run_folder(options: FolderOptions, recorded: Mapping[str, Any], hyp: Mapping[str, Any]) -> Path:
    """Make and lock the folder of a run, with its options in ``opt.yaml`` and its hyper-parameters in ``hyp.yaml``."""
    folder = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
    lock_folder(folder)
    remove_drafts(OutputFolder(folder).path("weights/last.pt").parent)
    for name, content in (("opt", recorded), ("hyp", hyp)):
        text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        write_atomic(folder / f"{name}.yaml", text.encode())
    return folder
