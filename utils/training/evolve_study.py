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
HEARTBEAT_S, GRACE_S = 20, 120  # a process shows that it lives, and is given up after a silence
_FIGURES = frozenset({"fitness", *EVOLVE_METRICS[:4]})  # what every finished trial has
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")  # of a journal of SQLite that ends in the name of another one
_LOCK_S = 120  # longest wait for another process that writes the file


def require_optuna() -> Any:
    """The package, told to be quiet.

    Raises:
        InputError: it is not installed.
    """
    optuna = import_optional("optuna", "optuna", "--evolve")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def make_study(
    folder: Path, space: SearchSpace, earlier: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
) -> None:
    """Write the study of a new run folder, with the trials known from elsewhere, or else with the start to come first.

    ``earlier`` are their values and figures. The file appears with all of it or not at all; when another process is
    first, its file stays.
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
    """The study of a run folder.

    Raises:
        InputError: the file is no study, or not one that this release of Optuna reads.
    """
    optuna = require_optuna()
    file = OutputFolder(folder).path(STUDY_FILE)  # no link leads to a database elsewhere
    make = genetic_sampler if sampler == "genetic" else tpe_sampler
    with study_errors(folder):
        _check_journal(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the heartbeat
            storage = _storage(file, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
        study = optuna.load_study(storage=storage, study_name=STUDY_NAME, sampler=make(space, seed))
        for trial in study.get_trials(deepcopy=False):
            if (odd := _oddity(trial, space)) is not None:
                raise ValueError(f"trial {trial.number} has {odd}")
    return study


def _storage(file: Path, **settings: Any) -> Any:
    """The storage in a SQLite file. The path is no part of an address, in which ``?`` and ``{`` have a meaning."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=_LOCK_S)
        connection.execute("PRAGMA trusted_schema = OFF")  # views and triggers of strangers call no function
        return connection

    engine = {"creator": connect, "poolclass": importlib.import_module("sqlalchemy.pool").NullPool}
    return require_optuna().storages.RDBStorage("sqlite:///study.db", engine_kwargs=engine, **settings)


@contextlib.contextmanager
def study_errors(folder: Path) -> Iterator[None]:
    """Make whatever SQLite, SQLAlchemy and Optuna find wrong with the study of a run folder an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> InputError:
    """The line about a study that cannot be used."""
    return InputError(
        f"{folder / STUDY_FILE}: no study that can be used ({first_line(error)}); if it is damaged, remove it: "
        "the search then goes on from evolve.csv beside it"
    )


def _check_journal(file: Path) -> None:
    """Refuse a journal that names another one: SQLite would remove the file of that name, wherever it lies.

    Optuna writes none that does; an ordinary one, of a process that was killed, is played back.
    """
    journal = file.with_name(f"{file.name}-journal")
    if journal.is_symlink() or (journal.exists() and not journal.is_file()):
        raise ValueError(f"{journal.name} is no file")
    if journal.is_file() and journal.read_bytes()[-len(_JOURNAL_END) :] == _JOURNAL_END:
        raise ValueError(f"{journal.name} leads to another file")


def trial_folder(folder: Path, name: Any) -> Path:
    """The folder of a trial in the run folder of a search.

    Raises:
        InputError: not the number of a trial, or a link leads out of the run folder.
    """
    if not _is_number(name):
        raise damaged(folder, ValueError(f"a trial has the folder {name!r}, which is no number"))
    return OutputFolder(folder).path(f"trials/{name}/weights/last.pt", make=False).parents[1]


def _is_number(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch("[0-9]{1,9}", name) is not None


def _oddity(trial: FrozenTrial, space: SearchSpace) -> str | None:
    """What of a trial is not as this program writes it, None when all is."""
    attributes, queued = trial.user_attrs, trial.system_attrs.get("fixed_params", {})
    row = attributes.get("row", {})
    if not _is_number(attributes.get("folder", "0")):
        return f"the folder {attributes['folder']!r}, which is no number"
    if not isinstance(attributes.get(OUTCOME, ""), str):
        return f"the outcome {attributes[OUTCOME]!r}"
    for what, values in (("values", trial.params), ("queued values", queued)):
        if not isinstance(values, Mapping):
            return f"{what} that are none"
        for name, value in values.items():
            gene = space.searched.get(name)
            if gene is None or not _finite(value) or not gene.low <= value <= gene.high:
                return f"{what} out of the search: {name} {value!r}"
    if not isinstance(row, Mapping) or not all(_is_figure(value) for value in row.values()):
        return "figures that are none"
    if trial.value is not None and not (_finite(trial.value) and row.keys() >= _FIGURES):
        return "no figures"
    return None


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return _is_figure(value) and math.isfinite(value)


def evaluated(study: Study) -> list[FrozenTrial]:
    """The trials that count, in the order of their numbers: those with a fitness, and those that could not be trained.

    A trial that was interrupted does not count.
    """
    return [t for t in study.get_trials(deepcopy=False) if t.value is not None or OUTCOME in t.user_attrs]


def in_progress(study: Study) -> int:
    """How many trials other processes are training; those whose process has died are closed."""
    optuna = require_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)))


def _add_finished(study: Study, space: SearchSpace, values: Mapping[str, float], row: Mapping[str, float]) -> None:
    """Put a trial into the study that was made elsewhere; ``row`` are its figures, ``fitness`` among them."""
    optuna = require_optuna()
    kept = {name: gene.clip(values.get(name, getattr(space.start, name))) for name, gene in space.searched.items()}
    study.add_trial(
        optuna.trial.create_trial(
            params=kept, distributions=_distributions(space.searched), value=row["fitness"],
            user_attrs={"row": dict(row)},
        )
    )  # fmt: skip


def suggest(trial: Any, space: SearchSpace) -> dict[str, float]:
    """The values of a trial for what is searched."""
    return {name: trial.suggest_float(name, gene.low, gene.high) for name, gene in space.searched.items()}


def _distributions(genes: Mapping[str, Gene]) -> dict[str, BaseDistribution]:
    optuna = require_optuna()
    return {name: optuna.distributions.FloatDistribution(gene.low, gene.high) for name, gene in genes.items()}


def genetic_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """The sampler that mutates the best trials so far (:meth:`SearchSpace.mutate`), or the start while there are none.

    What it draws depends on the seed, the number of the trial and the trials that are finished by then, so processes
    that share a study do not draw the same.
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
            raise RuntimeError(f"{param_name} is not in the search space")  # nothing else is ever asked for

    return GeneticSampler()


def tpe_sampler(space: SearchSpace, seed: int) -> BaseSampler:
    """Optuna's tree-structured Parzen estimator over the whole ranges, ten random trials first.

    Each trial has a generator of its own, from the seed and its number, as with the genetic sampler.
    """
    from optuna.samplers import BaseSampler, TPESampler

    class SeededTpe(BaseSampler):
        def __init__(self) -> None:
            self._tpe = TPESampler(seed=seed)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            number = int(np.random.SeedSequence((seed, trial.number)).generate_state(1)[0])
            self._tpe = TPESampler(seed=number, constant_liar=True)  # liar: other processes try something else
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
