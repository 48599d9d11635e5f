"""The study of --evolve: its samplers, its file, and what counts as a trial. Nothing is trained."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from utils.config.hyp import Hyp
from utils.errors import InputError
from utils.training.evolve_space import SearchSpace
from utils.training.evolve_study import (
    STUDY_FILE,
    evaluated,
    in_progress,
    make_study,
    open_study,
    require_optuna,
    suggest,
)

optuna = pytest.importorskip("optuna")
SPACE = SearchSpace.around(Hyp(), ())


def study_in(folder: Path, sampler: str = "genetic", seed: int = 0, earlier: Any = ()) -> Any:
    make_study(folder, SPACE, earlier)
    return open_study(folder, SPACE, sampler, seed)


@pytest.mark.parametrize("sampler", ["genetic", "tpe"])
def test_the_first_trial_is_the_start_and_later_ones_differ_stay_in_their_ranges_and_depend_on_the_seed(
    tmp_path: Path, sampler: str
) -> None:
    found = {}
    for seed in (0, 1, 0):
        folder = tmp_path / f"{seed}{len(found)}"
        folder.mkdir()
        study = study_in(folder, sampler, seed)
        study.optimize(lambda trial: suggest(trial, SPACE)["lr0"], n_trials=2)
        found[folder.name] = [trial.params for trial in study.trials]
    first, other, again = found.values()
    assert first == again
    assert first[0] == SPACE.start_values()
    assert first[1] != first[0] and first[1] != other[1]
    for params in first:
        assert all(SPACE.genes[name].low <= value <= SPACE.genes[name].high for name, value in params.items())


@pytest.mark.parametrize("sampler", ["genetic", "tpe"])
def test_two_processes_that_ask_at_the_same_time_try_different_values(tmp_path: Path, sampler: str) -> None:
    study_in(tmp_path, sampler).optimize(lambda trial: suggest(trial, SPACE)["lr0"], n_trials=1)
    one, two = (open_study(tmp_path, SPACE, sampler, seed=0) for _ in range(2))
    assert suggest(one.ask(), SPACE) != suggest(two.ask(), SPACE)
    assert in_progress(one) == 2
    assert len(evaluated(two)) == 1


def test_the_genetic_sampler_goes_on_from_the_better_trial(tmp_path: Path) -> None:
    low, high = {"lr0": 0.01}, {"lr0": 0.05}
    study = study_in(tmp_path, earlier=[(low, {"fitness": 0.1}), (high, {"fitness": 0.9})])
    children = [suggest(study.ask(), SPACE)["lr0"] for _ in range(5)]
    assert min(children) > 0.02


def test_a_study_that_another_process_has_made_is_kept(tmp_path: Path) -> None:
    study_in(tmp_path).optimize(lambda trial: suggest(trial, SPACE)["lr0"], n_trials=1)
    make_study(tmp_path, SPACE, ())
    assert len(evaluated(open_study(tmp_path, SPACE, "genetic", 0))) == 1
    assert [file.name for file in tmp_path.iterdir()] == [STUDY_FILE]


def test_a_file_that_is_no_study_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(InputError, match=rf"{STUDY_FILE}: no study .*remove it: .*evolve\.csv"):
        open_study(tmp_path, SPACE, "genetic", 0)


def test_a_trial_whose_process_died_is_given_up(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    trial = study.ask()
    study._storage.record_heartbeat(trial._trial_id)
    assert in_progress(study) == 1
    with sqlite3.connect(tmp_path / STUDY_FILE) as database:  # as if long ago
        database.execute("update trial_heartbeats set heartbeat = '2020-01-01 00:00:00'")
    assert in_progress(study) == 0


def test_without_the_package_the_option_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"--evolve needs .* pip install optuna"):
        require_optuna()
