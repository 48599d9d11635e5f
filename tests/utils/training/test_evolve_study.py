"""The study of --evolve: its samplers, its file, and what counts as a trial. Nothing is trained."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.plots.evolve import EVOLVE_METRICS
from utils.training.evolve_space import SearchSpace
from utils.training.evolve_study import (
    STUDY_FILE,
    evaluated,
    in_progress,
    make_study,
    open_study,
    require_optuna,
    suggest,
    trial_folder,
)

optuna = pytest.importorskip("optuna")
SPACE = SearchSpace.around(Hyp(), ())


def study_in(folder: Path, sampler: str = "genetic", seed: int = 0, earlier: Any = ()) -> Any:
    make_study(folder, SPACE, earlier)
    return open_study(folder, SPACE, sampler, seed)


def metrics(fitness: float) -> dict[str, float]:
    return dict.fromkeys([*EVOLVE_METRICS, "fitness"], fitness)


def finish(trial: Any) -> float:
    """Stands for the training of a trial."""
    trial.set_user_attr("folder", "0")
    trial.set_user_attr("row", metrics(0.5))
    return suggest(trial, SPACE)["lr0"]


@pytest.mark.parametrize("sampler", ["genetic", "tpe"])
def test_the_first_trial_is_the_start_and_later_ones_differ_stay_in_their_ranges_and_depend_on_the_seed(
    tmp_path: Path, sampler: str
) -> None:
    found = {}
    for seed in (0, 1, 0):
        folder = tmp_path / f"{seed}{len(found)}"
        folder.mkdir()
        study = study_in(folder, sampler, seed)
        study.optimize(finish, n_trials=2)
        found[folder.name] = [trial.params for trial in study.trials]
    first, other, again = found.values()
    assert first == again
    assert first[0] == SPACE.start_values()
    assert first[1] != first[0] and first[1] != other[1]
    for params in first:
        assert all(SPACE.genes[name].low <= value <= SPACE.genes[name].high for name, value in params.items())


@pytest.mark.parametrize("sampler", ["genetic", "tpe"])
def test_two_processes_that_ask_at_the_same_time_try_different_values(tmp_path: Path, sampler: str) -> None:
    study_in(tmp_path, sampler).optimize(finish, n_trials=1)
    one, two = (open_study(tmp_path, SPACE, sampler, seed=0) for _ in range(2))
    assert suggest(one.ask(), SPACE) != suggest(two.ask(), SPACE)
    assert in_progress(one) == 2
    assert len(evaluated(two)) == 1


def test_the_genetic_sampler_goes_on_from_the_better_trial(tmp_path: Path) -> None:
    low, high = {"lr0": 0.01}, {"lr0": 0.05}
    study = study_in(tmp_path, earlier=[(low, metrics(0.1)), (high, metrics(0.9))])
    children = [suggest(study.ask(), SPACE)["lr0"] for _ in range(5)]
    assert min(children) > 0.02


def test_a_study_that_another_process_has_made_is_kept(tmp_path: Path) -> None:
    study_in(tmp_path).optimize(finish, n_trials=1)
    make_study(tmp_path, SPACE, ())
    assert len(evaluated(open_study(tmp_path, SPACE, "genetic", 0))) == 1
    assert [file.name for file in tmp_path.iterdir()] == [STUDY_FILE]


def test_a_file_that_is_no_study_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(InputError, match=rf"{STUDY_FILE}: no study that can be used .*remove it: .*evolve\.csv"):
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


@pytest.mark.parametrize("folder", ["a?b=1", "a#b", "{0}", "a b%20c", "猫"])
def test_a_run_folder_of_any_name_holds_its_study(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    study_in(tmp_path / folder)
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")] == [f"{folder}/{STUDY_FILE}"]


def test_a_study_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    study_in(tmp_path / "mine")
    (tmp_path / "theirs" / STUDY_FILE).symlink_to(tmp_path / "mine" / STUDY_FILE)
    with pytest.raises(InputError, match="a link leads to"):
        open_study(tmp_path / "theirs", SPACE, "genetic", 0)


def test_a_journal_that_has_sqlite_remove_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    """SQLite removes the file whose name a journal ends in, if none of the journals that it lists is there."""
    study_in(tmp_path)
    victim, other = tmp_path / "victim.txt", tmp_path / "other.db"
    with sqlite3.connect(tmp_path / STUDY_FILE, isolation_level=None) as database:
        database.execute("PRAGMA cache_size = 1")
        database.execute(f"ATTACH '{other}' AS other")
        database.execute("BEGIN")
        database.execute("CREATE TABLE other.t (x)")
        database.execute("CREATE TABLE big (x)")
        for _ in range(300):
            database.execute("INSERT INTO big VALUES (randomblob(4000))")
        journal = (tmp_path / f"{STUDY_FILE}-journal").read_bytes()
        content = (tmp_path / STUDY_FILE).read_bytes()
        database.execute("ROLLBACK")
    name = str(victim).encode()
    end = (0x40000000 // 4096 + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    end += (sum(name) & 0xFFFFFFFF).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    (tmp_path / STUDY_FILE).write_bytes(content)
    (tmp_path / f"{STUDY_FILE}-journal").write_bytes(journal + end)
    victim.write_text("mine")
    with pytest.raises(InputError, match=r"study\.db-journal leads to another file"):
        open_study(tmp_path, SPACE, "genetic", 0)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("update trial_user_attributes set value_json = '\"../../x\"' where key = 'folder'", r"trial 0 has the folder"),
        ("update trial_user_attributes set value_json = '3' where key = 'folder'", r"the folder 3, which is no number"),
        ("update trial_user_attributes set value_json = '[1' where key = 'folder'", "no study that can be used"),
        ("update trial_user_attributes set value_json = '7' where key = 'row'", "metrics that are no numbers"),
        (
            "update trial_user_attributes set value_json = '{\"a\": \"b\"}' where key = 'row'",
            "metrics that are no numbers",
        ),
        ("update trial_user_attributes set value_json = '{}' where key = 'row'", "has no metrics"),
        ("update trial_params set param_value = 1e9 where param_name = 'lr0'", "values out of the search: lr0"),
        ("update trial_params set distribution_json = '{}'", "no study that can be used"),
        ("update trial_params set param_name = '../x' where param_name = 'lr0'", "out of the search: "),
        ('update trial_system_attributes set value_json = \'{"lr0": "x"}\'', "queued values out of the search: lr0"),
        ("update trial_system_attributes set value_json = '[1, 2]'", "queued values of a wrong kind"),
        ("update trials set state = 'GONE'", "no study that can be used"),
        ("update trial_values set value = 1e400", "no study that can be used"),
        ("delete from studies", "no study that can be used"),
        ("update study_directions set direction = 'SIDEWAYS'", "no study that can be used"),
    ],
)
def test_the_content_of_an_untrusted_study_is_checked(tmp_path: Path, change: str, message: str) -> None:
    study_in(tmp_path).optimize(finish, n_trials=1)
    with sqlite3.connect(tmp_path / STUDY_FILE) as database:
        database.execute(change)
    with pytest.raises(InputError, match=message):
        open_study(tmp_path, SPACE, "genetic", 0)


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a", "", "1/2", "１", 3, None, "1" * 10])
def test_the_folder_of_a_trial_is_a_number(tmp_path: Path, name: Any) -> None:
    with pytest.raises(InputError, match="which is no number"):
        trial_folder(tmp_path, name)
    assert trial_folder(tmp_path, "12") == tmp_path / "trials/12"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", ["trials", "trials/3", "trials/3/weights", "trials/3/weights/last.pt"])
def test_no_link_leads_a_trial_into_the_folder_of_somebody_else(tmp_path: Path, link: str) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "run" / link).parent.mkdir(parents=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="a link leads to"):
        trial_folder(tmp_path / "run", "3")
