"""Writing checkpoints so that a full disk costs a warning, not the run."""

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
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.core.files import increment_path, write_atomic
from utils.core.output import OutputFolder, lock_folder

LOG = logging.getLogger(__name__)
RESUME_FILE = "resume.pt"  # beside last.pt of a finished run: what --resume needs to extend it


class Saver:
    """Writes checkpoint files; one that cannot be written is kept in memory and tried again with the next.

    Attributes:
        unwritten: checkpoints that could not be written, by file.
        written: files that have been written at least once.
    """

    def __init__(self) -> None:
        self.unwritten: dict[Path, Checkpoint] = {}
        self.written: set[Path] = set()

    def write(self, path: Path, checkpoint: Checkpoint) -> bool:
        """Write a file, or warn and keep its content; the old file stays whole either way. True when it is written."""
        try:
            save_checkpoint(path, checkpoint)
        except OSError as error:
            old = "the older file is whole" if path.exists() else "there is none yet"
            LOG.warning("%s could not be written (%s); %s. The run goes on: make room!", path, error.strerror, old)
            self.unwritten[path] = copy.deepcopy(checkpoint)  # its tensors are those in training
            return False
        self.unwritten.pop(path, None)
        self.written.add(path)
        return True

    def retry(self, *newer: Path) -> bool:
        """Try again what could not be written, but for ``newer`` files to come; True when nothing is left."""
        for path, checkpoint in list(self.unwritten.items()):
            if path not in newer:
                self.write(path, checkpoint)
        return not self.unwritten


def keep_resumable(last: Path) -> None:
    """Copy the last.pt of a finished run, before it is stripped, to ``resume.pt``: with that it can be extended."""
    try:
        write_atomic(last.with_name(RESUME_FILE), last.read_bytes())
    except OSError as error:
        LOG.warning("no room for %s (%s): this run cannot be extended", last.with_name(RESUME_FILE), error.strerror)


def strip(path: Path) -> None:
    """Reduce a checkpoint to what use takes; without room for that it stays as it is."""
    try:
        LOG.info("%s: stripped to %.1f MB", path, strip_checkpoint(path))
    except OSError as error:
        LOG.warning("%s stays as large as it is (%s)", path, error.strerror)


def resume_command(path: Path, model_yaml: Mapping[str, Any], launcher: str = "python") -> str:
    """The command line that goes on with the run of a checkpoint."""
    return f"{launcher} train.py --resume {shlex.quote(str(path))}{modules_argument(model_yaml)}"


def sweep(folder: Path) -> None:
    """Remove the drafts of files that a killed process was writing; each is as large as a checkpoint."""
    for draft in folder.glob(".*.pt.*.tmp"):
        draft.unlink(missing_ok=True)


def lock_known(options: TrainOptions) -> None:
    """Refuse at once to share the folder of a run that is going on."""
    if options.exist_ok and (folder := Path(options.project) / options.name).is_dir():
        lock_folder(folder)


def make_folder(options: TrainOptions, hyp: Hyp) -> Path:
    """The run folder, with what this run is made with in ``opt.yaml`` and ``hyp.yaml``."""
    save_dir = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
    lock_folder(save_dir)
    sweep(OutputFolder(save_dir).path("weights/last.pt").parent)
    for name, content in (("opt", to_plain(options)), ("hyp", hyp.to_dict())):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomic(save_dir / f"{name}.yaml", text.encode())
    return save_dir
