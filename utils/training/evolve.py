"""``--evolve``: a search for hyper-parameters, each trial of which is a whole training run."""

from __future__ import annotations

import gc
import logging
import math
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from models.dynamic import temperatures
from models.user_modules import trust_yamls
from models.yolo import Model
from utils.checkpoint import load_checkpoint
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.config.paths import ROOT, find_yaml
from utils.core.callbacks import Callback, FitEpochEnd
from utils.core.errors import InputError, UntrainableError
from utils.core.files import increment_path, read_yaml, write_atomic
from utils.core.names import counted
from utils.training.evolve_files import (
    CSV_FILE,
    HYP_FILE,
    best_of,
    fitness_of,
    hyp_yaml,
    read_trials,
    write_results,
)
from utils.training.evolve_space import SearchSpace
from utils.training.evolve_study import (
    DEAD_AFTER_S,
    OUTCOME,
    STUDY_FILE,
    damaged,
    evaluated,
    in_progress,
    make_study,
    open_study,
    require_optuna,
    study_errors,
    suggest,
    trial_folder,
)
from utils.training.model_setup import DEFAULT_CFG
from utils.training.run_options import CHANGEABLE, same_run

if TYPE_CHECKING:
    from optuna import Study, Trial

LOG = logging.getLogger(__name__)

Train = Callable[[TrainOptions], Mapping[str, float]]
# Of CHANGEABLE, those that change the fitness of a trial or have no meaning here.
_OTHER_RUN = frozenset({"epochs", "patience", "nosave", "noval", "save_period", "save_steps"})
_CHANGEABLE = (CHANGEABLE - _OTHER_RUN) | {"evolve", "evolve_sampler", "project", "name", "exist_ok"}


class TrialStopped(Exception):
    """A signal stopped the training of a trial, after its checkpoint was written."""


class LastRow(Callback):
    """Keeps the metrics of the last epoch in ``row``."""

    def __init__(self) -> None:
        self.row: Mapping[str, float] = {}

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """Replace those of the epoch before."""
        self.row = event.row


@dataclass
class Search:
    """A search in progress."""

    options: TrainOptions
    folder: Path
    space: SearchSpace
    study: Study
    train: Train
    trusted: bool = True  # the model yaml was named on the command line, not by a file in the folder
    failure: Exception | None = None  # error of the training of a trial
    trained: int = 0  # finished trials, of all processes
    current: tuple[dict[str, float], Path] | None = None  # values and folder of the trial in progress

    @property
    def command(self) -> str:
        """The command line that continues the search."""
        modules = "".join(f" --modules {shlex.quote(name)}" for name in self.options.modules)
        return f"python train.py --evolve {self.options.evolve} --resume {shlex.quote(str(self.folder))}{modules}"

    def __call__(self, trial: Trial) -> float:
        """Train with the values of a trial, and return its fitness.

        Raises:
            UntrainableError: losses or weights are not finite; the trial counts as failed.
        """
        values = suggest(trial, self.space)
        folder = trial_folder(self.folder, trial.user_attrs.get("folder", str(trial.number)))
        trial.set_user_attr("folder", folder.name)
        self.current = values, folder
        LOG.info("trial %d: %s", trial.number, _changes(values, self.space.start_values()))
        try:
            try:
                row = dict(self.train(self._options(folder, self.space.hyp(values))))
            except Exception as error:
                self.failure = error
                raise
            fitness = fitness_of(row)
            if not math.isfinite(fitness):
                raise UntrainableError(f"the fitness is {fitness}")
        except UntrainableError as error:
            trial.set_user_attr(OUTCOME, str(error))
            LOG.warning("trial %d could not be trained and counts as failed: %s", trial.number, error)
            raise
        (folder / "weights/last.pt").unlink(missing_ok=True)  # from which an interrupted trial was resumed
        with suppress(OSError):
            (folder / "weights").rmdir()
        trial.set_user_attr("row", row | {"fitness": fitness})
        return fitness

    def _options(self, folder: Path, hyp: Hyp) -> TrainOptions:
        """Return the options of a trial, which is resumed if it was interrupted."""
        last = folder / "weights/last.pt"
        if last.is_file():
            free = CHANGEABLE - _OTHER_RUN
            return TrainOptions(**{name: getattr(self.options, name) for name in free} | {"resume": str(last)})
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "hyp.yaml"
        write_atomic(file, hyp_yaml(self.space, hyp).encode())
        options = replace(self.options, hyp=str(file), noval=True, nosave=True, resume=False)
        return replace(options, project=str(folder.parent), name=folder.name, exist_ok=True)


def evolve(options: TrainOptions, train: Train) -> int:
    """Search until the study has ``--evolve`` trials, or until a signal; return the exit code.

    Args:
        options: of the search, and of all its trials apart from the hyper-parameters.
        train: trains with the options of a trial and returns the metrics of its last epoch.

    Raises:
        FileNotFoundError, InputError: some input does not fit; Optuna is not installed; no trial could be trained.
    """
    search = _open_search(options, train)
    LOG.info("searching %d hyper-parameters in %s", len(search.space.searched), search.folder)
    try:
        with trust_yamls(search.trusted):
            while _trials(search) < (search.options.evolve or 0):
                _one_trial(search)
    except TrialStopped:
        LOG.info("stopped in a trial, which is kept; continue with: %s", search.command)
        return 0
    except (KeyboardInterrupt, InputError):
        if search.trained:
            LOG.info("the finished trials are kept; continue with: %s", search.command)
        raise
    _log_result(search)
    return 0


def _trials(search: Search) -> int:
    """Return how many trials are done or in progress."""
    with study_errors(search.folder):
        search.trained = len(evaluated(search.study))
        return search.trained + in_progress(search.study)


def _one_trial(search: Search) -> None:
    """Train one trial, rewrite the results and log the best one."""
    search.current = search.failure = None
    try:
        search.study.optimize(search, n_trials=1, catch=(UntrainableError,))
    except (TrialStopped, KeyboardInterrupt, InputError):
        if search.current:  # the same values are tried first next time
            values, folder = search.current
            search.study.enqueue_trial(values, user_attrs={"folder": folder.name})
        raise
    except Exception as error:
        if error is search.failure:
            raise
        raise damaged(search.folder, error) from error
    gc.collect()  # models and loaders have reference cycles
    with study_errors(search.folder):
        done = evaluated(search.study)
    search.trained = len(done)
    write_results(search.folder, search.space, done)
    best = best_of(done)
    result = f"best fitness {best.value:.5g} (trial {best.number})" if best else "none of them could be trained"
    LOG.info("%d of %s done, %s", len(done), counted(search.options.evolve or 0, "trial"), result)


def _log_result(search: Search) -> None:
    """Log the best trial and where the results are.

    Raises:
        InputError: no trial could be trained.
    """
    with study_errors(search.folder):
        done, others = evaluated(search.study), in_progress(search.study)
    write_results(search.folder, search.space, done)  # another process may have written an older table last
    best = best_of(done)
    if others:
        LOG.info(
            f"trials in progress in other processes: {others}; if none is running, the same command continues in "
            f"{DEAD_AFTER_S} s"
        )
    if best is None:
        if not others:
            raise InputError(f"no trial of {len(done)} could be trained; the last: {done[-1].user_attrs[OUTCOME]}")
        return
    changes = _changes(best.params, search.space.start_values())
    LOG.info("best of %s: fitness %.5g, %s", counted(len(done), "trial"), best.value, changes)
    LOG.info("hyper-parameters in %s, all trials in evolve.csv and the plots beside it", search.folder / HYP_FILE)


def _open_search(options: TrainOptions, train: Train) -> Search:
    """Start a new search, or open the one to be continued."""
    require_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "--evolve does not run under torchrun; start the same command several times with --exist-ok, each with "
            "another --device: they share the trials"
        )
    if not options.resume:
        Hyp.load(options.hyp)  # checks it before the folder is made
    folder = _folder(options)
    hyp_file, trusted = folder / "hyp.yaml", True
    if options.resume or (folder / STUDY_FILE).is_file():
        trusted = "cfg" in options.given
        options = _recorded_options(folder, options)
        LOG.info("continuing the search in %s", folder)
    else:
        hyp_file = find_yaml(options.hyp, "data/hyps")
    with trust_yamls(trusted):
        space = SearchSpace.around(Hyp.load(hyp_file), read_yaml(hyp_file), without=_fixed(options))
    for name, text in (
        ("opt", yaml.safe_dump(to_plain(options), sort_keys=False)),
        ("hyp", hyp_yaml(space, space.start)),
    ):
        write_atomic(folder / f"{name}.yaml", text.encode())
    if not (folder / STUDY_FILE).is_file():
        earlier = read_trials(folder, space)
        if earlier:
            LOG.info("%s taken from %s", counted(len(earlier), "trial"), folder / CSV_FILE)
        make_study(folder, space, earlier)
    study = open_study(folder, space, options.evolve_sampler, options.seed)
    return Search(options, folder, space, study, train, trusted)


def _fixed(options: TrainOptions) -> list[str]:
    """Return the hyper-parameters that an option fixes, or that have no effect on the model."""
    of_weights = load_checkpoint(options.weights).model_yaml if options.weights and not options.cfg else DEFAULT_CFG
    static = not temperatures(Model(options.cfg or of_weights))
    fixed = {"label_smoothing": bool(options.label_smoothing), "anchors": options.noautoanchor}
    of_dynamic = ("temperature_start", "temperature_step", "temperature_span", "kernel_lr", "attention_lr")
    fixed |= dict.fromkeys(of_dynamic, static)
    return [name for name, is_fixed in fixed.items() if is_fixed]


def _folder(options: TrainOptions) -> Path:
    """Return the run folder, which is made if it does not exist."""
    usual = options.project == str(ROOT / "runs/train")
    project = ROOT / "runs/evolve" if usual else Path(options.project)  # as v6.1
    if not options.resume:
        return increment_path(project / options.name, options.exist_ok, mkdir=True)
    if isinstance(options.resume, str):
        folder = Path(options.resume)
    else:
        studies = sorted(project.glob(f"*/{STUDY_FILE}"), key=lambda file: file.stat().st_mtime)
        if not studies:
            raise FileNotFoundError(f"--evolve --resume: no search to continue in {project}")
        folder = studies[-1].parent
    if not (folder / "opt.yaml").is_file() or not any((folder / name).is_file() for name in (STUDY_FILE, CSV_FILE)):
        raise FileNotFoundError(
            f"--evolve --resume {folder}: not the run folder of a search; expected {STUDY_FILE} in it"
        )
    return folder


def _recorded_options(folder: Path, options: TrainOptions) -> TrainOptions:
    file = folder / "opt.yaml"
    saved, changed = same_run(file, read_yaml(file), options, _CHANGEABLE)
    try:
        return TrainOptions(**(saved | changed | {"evolve": options.evolve}))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _changes(values: Mapping[str, float], start: Mapping[str, float]) -> str:
    """List the hyper-parameters that differ from the starting values."""
    changed = [f"{name} {value:.5g}" for name, value in values.items() if abs(value - start[name]) > 1e-9]
    return ", ".join(changed) or "the hyper-parameters given"
