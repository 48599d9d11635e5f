"""The study of ``--evolve``: an Optuna study in a SQLite file, which several processes may share, and its samplers."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.core.errors import InputError, first_line
from utils.core.output import OutputFolder
from utils.core.packages import import_optional
from utils.plots.evolve import EVOLVE_METRICS
from utils.training.evolve_space import Gene, SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

LOG = logging.getLogger(__name__)

STUDY_FILE = "study.db"
STUDY_NAME = "evolve"
OUTCOME = "outcome"  # user attribute of a failed trial that counts: why it failed
HEARTBEAT_S, DEAD_AFTER_S = 20, 120  # a process shows so often that it lives; without that it counts as dead
_METRICS = frozenset({"fitness", *EVOLVE_METRICS[:4]})  # of every finished trial
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")  # of a SQLite journal that ends in the name of another one
_LOCK_S = 120  # longest wait for another process that writes the file


def require_optuna() -> Any:
    """Import the package, and let it log errors only.

    Raises:
        InputError: it is not installed.
    """
    optuna = import_optional("optuna", "optuna", "--evolve")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def make_study(
    folder: Path, space: SearchSpace, earlier: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
) -> None:
    """Write the study of a new run folder. The file appears complete or not at all; one of another process is kept.

    Args:
        folder: of the run.
        space: that is searched.
        earlier: values and metrics of trials known from a table; without any the starting values are tried first.
    """
    optuna = require_optuna()
    file = OutputFolder(folder).path(STUDY_FILE)
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        storage = _storage(draft)
        study = optuna.create_study(storage=storage, study_name=STUDY_NAME, direction="maximize")
        for values, row in earlier:
            _add_finished(study, space, values, row)
        if not earlier:
            study.enqueue_trial(space.start_values())
        storage.engine.dispose()
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def open_study(folder: Path, space: SearchSpace, sampler: str, seed: int) -> Study:
    """Open the study of a run folder.

    Raises:
        InputError: the file is no study that this release of Optuna reads.
    """
    optuna = require_optuna()
    file = OutputFolder(folder).path(STUDY_FILE)  # no link leads to a database elsewhere
    make = genetic_sampler if sampler == "genetic" else tpe_sampler
    with study_errors(folder):
        _check_journal(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the heartbeat
            storage = _storage(file, heartbeat_interval=HEARTBEAT_S, grace_period=DEAD_AFTER_S)
        study = optuna.load_study(storage=storage, study_name=STUDY_NAME, sampler=make(space, seed))
        for trial in study.get_trials(deepcopy=False):
            if (fault := _trial_fault(trial, space)) is not None:
                raise ValueError(f"trial {trial.number} has {fault}")
    return study


def _storage(file: Path, **settings: Any) -> Any:
    """Return the storage in a SQLite file; its path is not put into a URL, in which ``?`` and ``{`` have a meaning."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=_LOCK_S)
        connection.execute("PRAGMA trusted_schema = OFF")  # views and triggers of an untrusted file call no function
        return connection

    engine = {"creator": connect, "poolclass": importlib.import_module("sqlalchemy.pool").NullPool}
    return require_optuna().storages.RDBStorage("sqlite:///study.db", engine_kwargs=engine, **settings)


@contextlib.contextmanager
def study_errors(folder: Path) -> Iterator[None]:
    """While open, turn errors of SQLite, SQLAlchemy and Optuna about the study of a run folder into InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> InputError:
    """Return the error about a study that cannot be used."""
    return InputError(
        f"{folder / STUDY_FILE}: no study that can be used ({first_line(error)}); if it is damaged, remove it: "
        "the search then continues from evolve.csv beside it"
    )


def _check_journal(file: Path) -> None:
    """Raise ValueError: a journal names another one, and SQLite would remove the file of that name, wherever it is.

    Optuna never writes such a journal; the usual one, of a process that was killed, is applied.
    """
    journal = file.with_name(f"{file.name}-journal")
    if journal.is_symlink() or (journal.exists() and not journal.is_file()):
        raise ValueError(f"{journal.name} is no file")
    if journal.is_file() and journal.read_bytes()[-len(_JOURNAL_END) :] == _JOURNAL_END:
        raise ValueError(f"{journal.name} leads to another file")


def trial_folder(folder: Path, name: Any) -> Path:
    """Return the folder of a trial in the run folder of a search.

    Raises:
        InputError: ``name`` is not the number of a trial, or a link leads out of the run folder.
    """
    if not _is_number(name):
        raise damaged(folder, ValueError(f"a trial has the folder {name!r}, which is no number"))
    return OutputFolder(folder).path(f"trials/{name}/weights/last.pt", make=False).parents[1]


def _is_number(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch("[0-9]{1,9}", name) is not None


def _trial_fault(trial: FrozenTrial, space: SearchSpace) -> str | None:
    """Return what of a trial differs from what this program writes; None when nothing does."""
    attributes, queued = trial.user_attrs, trial.system_attrs.get("fixed_params", {})
    row = attributes.get("row", {})
    if not _is_number(attributes.get("folder", "0")):
        return f"the folder {attributes['folder']!r}, which is no number"
    if not isinstance(attributes.get(OUTCOME, ""), str):
        return f"the outcome {attributes[OUTCOME]!r}"
    for what, values in (("values", trial.params), ("queued values", queued)):
        if not isinstance(values, Mapping):
            return f"{what} of a wrong kind"
        for name, value in values.items():
            gene = space.searched.get(name)
            if gene is None or not _finite(value) or not gene.low <= value <= gene.high:
                return f"{what} out of the search: {name} {value!r}"
    if not isinstance(row, Mapping) or not all(_is_metric(value) for value in row.values()):
        return "metrics that are no numbers"
    if trial.value is not None and not (_finite(trial.value) and row.keys() >= _METRICS):
        return "no metrics"
    return None


def _is_metric(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return _is_metric(value) and math.isfinite(value)


def evaluated(study: Study) -> list[FrozenTrial]:
    """Return the trials that count, by number: those with a fitness, and those that could not be trained.

    Interrupted trials do not count.
    """
    return [t for t in study.get_trials(deepcopy=False) if t.value is not None or OUTCOME in t.user_attrs]


def in_progress(study: Study) -> int:
    """Return how many trials other processes are training, after closing those of dead processes."""
    optuna = require_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)))


def _add_finished(study: Study, space: SearchSpace, values: Mapping[str, float], row: Mapping[str, float]) -> None:
    """Add a trial of a table to the study; ``row`` has its metrics and ``fitness``."""
    optuna = require_optuna()
    kept = {name: gene.clip(values.get(name, getattr(space.start, name))) for name, gene in space.searched.items()}
    distributions, attributes = _distributions(space.searched), {"row": dict(row)}
    study.add_trial(
        optuna.trial.create_trial(params=kept, distributions=distributions, value=row["fitness"], user_attrs=attributes)
    )


def suggest(trial: Any, space: SearchSpace) -> dict[str, float]:
    """Return the values of a trial for the hyper-parameters that are searched."""
    return {name: trial.suggest_float(name, gene.low, gene.high) for name, gene in space.searched.items()}


def _distributions(genes: Mapping[str, Gene]) -> dict[str, BaseDistribution]:
    optuna = require_optuna()
    return {name: optuna.distributions.FloatDistribution(gene.low, gene.high) for name, gene in genes.items()}


def genetic_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Make the sampler that mutates the best trials so far, or the starting values (:meth:`SearchSpace.mutate`).

    Its values depend on the seed, the number of the trial and the trials finished by then, so processes that share a
    study do not draw the same.
    """
    from optuna.samplers import BaseSampler
    from optuna.trial import TrialState

    class GeneticSampler(BaseSampler):
        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return _distributions(space.searched)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            parents = [t.params for t in done] or [space.start_values()]
            fitnesses = [t.value or 0.0 for t in done] or [0.0]
            return dict(space.mutate(parents, fitnesses, np.random.default_rng((seed, trial.number))))

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            raise RuntimeError(f"{param_name} is not in the search space")  # which has all parameters

    return GeneticSampler()


def tpe_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Make Optuna's tree-structured Parzen estimator over the whole ranges, with ten random trials first.

    Each trial has a separate generator, from the seed and its number, as with the genetic sampler.
    """
    from optuna.samplers import BaseSampler, TPESampler

    class SeededTpe(BaseSampler):
        def __init__(self) -> None:
            self._tpe = TPESampler(seed=seed)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            number = int(np.random.SeedSequence((seed, trial.number)).generate_state(1)[0])
            self._tpe = TPESampler(seed=number, constant_liar=True)  # the liar keeps processes from trying the same
            self._tpe.before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self._tpe.sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
            self._tpe.after_trial(study, trial, state, values)

    return SeededTpe()
