"""The study of ``--evolve``: an Optuna study in a SQLite file, which several processes may share, and its samplers."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.errors import InputError, first_line
from utils.packages import require
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
_LOCK_S = 120  # longest wait for another process that writes the file


def require_optuna() -> Any:
    """The package, told to be quiet.

    Raises:
        InputError: it is not installed.
    """
    optuna = require("optuna", "optuna", "--evolve")
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
    file = folder / STUDY_FILE
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{draft.resolve()}")
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
    file = folder / STUDY_FILE
    make = genetic_sampler if sampler == "genetic" else tpe_sampler
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the heartbeat
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{file.resolve()}",
                engine_kwargs={"connect_args": {"timeout": _LOCK_S}},
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
            )
        study = optuna.load_study(storage=storage, study_name=STUDY_NAME, sampler=make(space, seed))
        study.get_trials(deepcopy=False)  # what cannot be read among them shows here
        return study
    except Exception as error:  # whatever SQLAlchemy and Optuna find wrong with it
        raise InputError(
            f"{file}: no study that can be opened ({first_line(error)}); if it is damaged, remove it: "
            "the search then goes on from evolve.csv beside it"
        ) from error


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
