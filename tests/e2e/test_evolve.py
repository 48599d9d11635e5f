"""--evolve with real trainings."""

from __future__ import annotations

import csv
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

import train
from utils.config.options import TrainOptions
from utils.core.callbacks import BatchEnd, Callback
from utils.training.compiled import Network
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


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_evolve", "plot_evolve_course"):
        monkeypatch.setattr(f"utils.training.evolve_files.{name}", lambda _: None)


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


@pytest.mark.usefixtures("no_plots")
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


@pytest.mark.usefixtures("no_plots")
def test_numbers_that_break_are_a_failed_trial(
    tmp_path: Path, options_for: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = train.forward

    def breaking(s: Session, network: Network, images: Tensor) -> list[Tensor]:
        factor = math.nan if s.save_dir.name == "0" else 1.0
        return [level * factor for level in forward(s, network, images)]

    monkeypatch.setattr(train, "forward", breaking)
    assert train.main(options_for(tmp_path, evolve=2)) == 0
    assert "no effect" not in caplog.text  # of options that the search itself has set
    first, second = rows(tmp_path / "exp")
    assert (first["fitness"], first["val/box_loss"]) == ("0", "nan")
    assert math.isfinite(float(second["val/box_loss"]))
