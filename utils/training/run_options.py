"""The options of a run: those of the command line, together with those of the run that is resumed and of rank 0.

Here the whole record is still needed; ``prepare`` cuts it into slices (:mod:`utils.config.train_slices`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from models.user_modules import require_modules
from utils.config.keywords import recorded_options
from utils.config.options import TrainOptions
from utils.config.train_options import AUTO
from utils.core.dist import Ranks
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.output import lock_folder
from utils.training.resume import Resumed, check_work_left, open_run

LOG = logging.getLogger(__name__)

_CHANGEABLE = """
    resume epochs patience data device workers amp compile skip_nonfinite nosave noval save_period save_steps cache
    cache_dir tensorboard wandb entity upload_dataset bbox_interval mlflow modules download allow_scripts download_limit
    local_rank
"""
_LATER = """
    evolve evolve_sampler bucket cache_dir mosaic_from quad save_steps skip_nonfinite amp compile deterministic sync_bn
    local_rank tensorboard wandb entity upload_dataset bbox_interval artifact_alias mlflow download allow_scripts
    download_limit modules
"""
# What a resumed run may change: where and how it runs, and when it ends, but not what it computes.
CHANGEABLE = frozenset(_CHANGEABLE.split())
# A file must not cause downloads, run code or name folders to write into: these come from the command line only.
_NEVER_FROM_FILE = ("modules", "download", "allow_scripts", "download_limit", "local_rank", "cache_dir")
# Paths and properties of a machine; all other options must be the same for all ranks.
_OF_MACHINE = frozenset({"data", "weights", "device", "workers", "cache", "cache_dir", "download", "allow_scripts"})


def resolve_options(options: TrainOptions, ranks: Ranks) -> tuple[TrainOptions, Resumed | None]:
    """Return the options that this rank works with, and the run that is resumed, None for a new one.

    Raises:
        FileNotFoundError, InputError: as :func:`resume_options`, or options that several ranks cannot have.
    """
    shared, resumed = ranks.on_main(resume_options, options)  # its file may exist on that machine only
    if not ranks.main:
        shared = replace(shared, **{name: getattr(options, name) for name in _OF_MACHINE & options.given})
    ranks.on_main(_lock_existing, shared.project, shared.name, shared.exist_ok)
    shared = check_single_process(shared, ranks, resumed is not None)
    check_batch_size(shared.batch_size, shared.quad, ranks, resumed is not None)
    return shared, resumed


def resume_options(options: TrainOptions) -> tuple[TrainOptions, Resumed | None]:
    """Return the options of the run that ``--resume`` names, and the run; unchanged and None without ``--resume``.

    Options given together with ``--resume`` replace those of the run where that does not change what it computes.

    Raises:
        FileNotFoundError: no such file, or no run to resume.
        InputError: the file is damaged, there is nothing left to do, an option would make it another run, or its model
            has layers from files that ``--modules`` does not name again: a checkpoint must not run code.
    """
    if not options.resume:
        return options, None
    path, checkpoint = open_run(options.resume)
    require_modules(checkpoint.model_yaml, f"--resume {path}", checkpoint.options.get("modules", ()))
    saved, changed = same_run(path, checkpoint.options, options, CHANGEABLE)
    folder = path.resolve().parents[1]
    changed |= {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "resume": str(path)}
    resumed = Resumed(path, checkpoint, extended=bool({"epochs", "patience"} & options.given))
    check_work_left(resumed, saved, changed)
    batches = checkpoint.train_state.get("position", {}).get("batches", 0)
    inside = f" and {counted(batches, 'batch')}" if batches else ""
    LOG.info("resuming %s after epoch %d%s of %d", path, resumed.epochs_done, inside, saved["epochs"])
    return TrainOptions(**(saved | changed)), resumed


def same_run(
    path: Path, recorded: Mapping[str, Any], options: TrainOptions, changeable: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the recorded options of the run at ``path``, and the ``changeable`` ones given now, which replace them.

    Raises:
        InputError: an option given now would make it another run.
    """
    saved = recorded_options(TrainOptions, recorded, str(path))
    later = set(_LATER.split())  # options that earlier versions did not have
    if missing := sorted({field.name for field in fields(TrainOptions)} - saved.keys() - later):
        raise InputError(f"--resume {path}: the option {missing[0]} is not recorded there")
    given = {name: getattr(options, name) for name in options.given}
    for name in sorted(given.keys() - changeable):
        if name in saved and given[name] != saved[name]:
            raise InputError(
                f"--resume {path}: this run has --{name.replace('_', '-')} {saved[name]}, not {given[name]}, and "
                "resuming continues the same run; omit the option, or start a new run with --weights"
            )
    if saved.get("cache_dir") and "cache_dir" not in given:
        LOG.info("this run kept its caches in %s: --cache-dir uses them again", saved["cache_dir"])
    changed = {name: given[name] for name in given.keys() & changeable}
    return saved, changed | {name: getattr(options, name) for name in _NEVER_FROM_FILE}


def _lock_existing(project: str, name: str, exist_ok: bool) -> None:
    """Raise InputError: the run folder exists and another process writes there."""
    if exist_ok and (folder := Path(project) / name).is_dir():
        lock_folder(folder)


def check_single_process(options: TrainOptions, ranks: Ranks, resumed: bool = False) -> TrainOptions:
    """Return the options, without --compile when several ranks resume a run that had it.

    Raises:
        InputError: an option that only a run of one process can have.
    """
    if options.compile and resumed and ranks.size > 1:
        LOG.warning("--compile of this run is dropped: it needs a single process, and %d resume the run", ranks.size)
        options = replace(options, compile=False)
    for flag, given in (("--batch-size -1", options.batch_size == AUTO), ("--compile", options.compile)):
        if given and ranks.size > 1:
            raise InputError(f"{flag} needs a run of one process, and this one has {ranks.size}; omit it")
    return options


def check_batch_size(batch_size: int, quad: bool, ranks: Ranks, resumed: bool = False) -> None:
    """Raise InputError: the total ``--batch-size`` cannot be divided among the ranks."""
    four = 4 if quad else 1
    unit = ranks.size * four
    if ranks.size == 1 or batch_size % unit == 0:
        return
    of_quad = ", with --quad in fours" if quad else ""
    cure = f"use a multiple of {unit}, for example {max(1, round(batch_size / unit)) * unit}"
    if resumed:  # which keeps its batch size
        numbers = [n for n in range(1, batch_size + 1) if batch_size % (n * four) == 0]
        cure = f"resume with {' or '.join(map(str, numbers or [1]))} of them: a resumed run keeps its batch size"
    raise InputError(
        f"--batch-size {batch_size} is the total of {ranks.size} processes and cannot be divided among them"
        f"{of_quad}; {cure}"
    )
