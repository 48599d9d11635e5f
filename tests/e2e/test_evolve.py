"""--evolve with real trainings."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import train
from utils.callbacks import BatchEnd, Callback
from utils.config.options import TrainOptions
from utils.training.session import Session

pytest.importorskip("optuna")

Options = Callable[..., TrainOptions]


class StopAfter(Callback):
    """Ctrl-C after a batch."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_end(self, event: BatchEnd) -> None:
        if event.iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "evolve.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, options_for: Options) -> Path:
    """Run folder of two trials of two epochs of two batches."""
    project = tmp_path_factory.mktemp("searched")
    assert train.main(options_for(project, evolve=2, epochs=2, batch_size=2)) == 0
    return project / "exp"


def test_a_search_leaves_its_files_and_no_checkpoints(searched: Path) -> None:
    files = {"study.db", "evolve.csv", "hyp_evolve.yaml", "evolve.png", "evolve_fitness.png", "opt.yaml", "hyp.yaml"}
    assert {file.name for file in searched.iterdir()} == files | {"trials"}
    for trial in (searched / "trials").iterdir():
        assert {file.name for file in trial.iterdir()} == {"results.csv", "opt.yaml", "hyp.yaml"}
    assert len(rows(searched)) == 2


def test_a_trial_is_scored_after_its_last_epoch_only(searched: Path) -> None:
    with (searched / "trials/1/results.csv").open(newline="", encoding="utf-8") as stream:
        first, last = csv.DictReader(stream)
    assert first["metrics/mAP_0.5"] == ""
    assert float(last["val/obj_loss"]) == pytest.approx(float(rows(searched)[1]["val/obj_loss"]), rel=1e-4)


def test_an_interrupted_trial_ends_as_if_nothing_had_happened(
    tmp_path: Path, searched: Path, options_for: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = train.prepare

    def stopping(options: TrainOptions) -> Session:
        session = prepare(options)
        session.callbacks.add(StopAfter(2))  # in the second epoch
        return session

    with monkeypatch.context() as patch:
        patch.setattr(train, "prepare", stopping)
        assert train.main(options_for(tmp_path, evolve=1, epochs=2, batch_size=2)) == 0
    assert (tmp_path / "exp/trials/0/weights/last.pt").exists()
    assert not (tmp_path / "exp/evolve.csv").exists()
    assert train.main(TrainOptions(evolve=1, resume=str(tmp_path / "exp"))) == 0
    resumed, whole = rows(tmp_path / "exp")[0], rows(searched)[0]
    assert {k: v for k, v in resumed.items() if k != "trial"} == {k: v for k, v in whole.items() if k != "trial"}
    assert not (tmp_path / "exp/trials/0/weights").exists()


def test_numbers_that_break_are_a_failed_trial(tmp_path: Path, options_for: Options) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("warmup_epochs: 0\nbox: 0.2\nlr0: 0.1\nnominal_batch: 1\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        forward, broken = train.forward, [True, False]
        patch.setattr(train, "forward", lambda s, x: [m * float("nan") if broken[0] else m for m in forward(s, x)])
        patch.setattr(train, "announce", lambda s, tell=train.announce: (tell(s), broken.append(broken.pop(0)))[0])
        assert train.main(options_for(tmp_path, evolve=2, hyp=str(hyp))) == 0
    fitnesses = [row["val/box_loss"] == "nan" for row in rows(tmp_path / "exp")]
    assert sorted(fitnesses) == [False, True]
