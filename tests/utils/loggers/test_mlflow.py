"""MLflow: what the logger tells a stand-in for the package, and the package itself where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from utils.config.hyp import Hyp
from utils.config.options import TrainOptions, to_plain
from utils.core.callbacks import FitEpochEnd, TrainEnd, TrainStart
from utils.core.errors import InputError
from utils.core.image import write_image
from utils.loggers import MlflowLogger


class Client:
    """Notes what it is told; what a database would keep is in ``kept``."""

    def __init__(self, tracking_uri: str, kept: dict[str, Any]) -> None:
        self.kept = kept | {"address": tracking_uri}
        kept.update(self.kept)
        self.told: list[tuple[Any, ...]] = kept.setdefault("told", [])
        self.runs: list[Any] = kept.setdefault("runs", [])

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1") if self.runs else None

    def search_runs(self, experiments: list[str], max_results: int) -> list[Any]:
        return self.runs

    def create_experiment(self, name: str, artifact_location: str) -> str:
        self.told.append(("experiment", artifact_location))
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.runs.append(SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(self.runs)}")))
        return self.runs[-1]

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        self.told.append((run, dict(params), [(name, value, step) for name, value, _, step in metrics]))

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **given: self.told.append((name, *values, *given.values()))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    entities = SimpleNamespace(Param=lambda *pair: pair, Metric=lambda *values: values)
    package = SimpleNamespace(MlflowClient=lambda tracking_uri: Client(tracking_uri, memory), entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", package)  # type: ignore[arg-type]
    return memory


def start(folder: Path, resumed: int = 0) -> TrainStart:
    return TrainStart(save_dir=folder, epochs=3, names=("a",), labels=np.zeros((0, 5)), resumed_epoch=resumed)


def logger_of(**given: Any) -> MlflowLogger:
    return MlflowLogger(to_plain(TrainOptions(mlflow=True, **given)), Hyp())


def test_everything_goes_into_the_run_folder(kept: dict[str, Any], tmp_path: Path) -> None:
    logger_of(imgsz=320).on_train_start(start(tmp_path))
    assert kept["address"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert kept["told"][0] == ("experiment", (tmp_path / "mlartifacts").as_uri())
    parameters = kept["told"][1][1]
    assert (parameters["imgsz"], parameters["hyp.lr0"]) == ("320", "0.01")


def test_a_row_has_the_epoch_as_its_step(kept: dict[str, Any], tmp_path: Path) -> None:
    logger = logger_of()
    logger.on_train_start(start(tmp_path))
    logger.on_fit_epoch_end(FitEpochEnd(epoch=2, row={"metrics/mAP_0.5": 0.25}))
    assert kept["told"][-1] == ("run0", {}, [("metrics/mAP_0.5", 0.25, 2)])


def test_images_tables_and_the_place_of_the_best_checkpoint_come_at_the_end(
    kept: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("results.csv", "results.png", "labels.jpg", "opt.yaml"):
        (tmp_path / name).touch()
    logger = logger_of()
    logger.on_train_start(start(tmp_path))
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=tmp_path / "best.pt", epochs_run=1))
    files = [Path(told[2]).name for told in kept["told"] if told[0] == "log_artifact"]
    assert files == ["results.png", "labels.jpg", "results.csv"]
    assert kept["told"][-2:] == [("set_tag", "run0", "best", str(tmp_path / "best.pt")), ("set_terminated", "run0")]


def test_a_resumed_run_is_the_same_run(kept: dict[str, Any], tmp_path: Path) -> None:
    logger_of().on_train_start(start(tmp_path))
    logger = logger_of()
    logger.on_train_start(start(tmp_path, resumed=1))
    logger.on_fit_epoch_end(FitEpochEnd(epoch=1, row={"a": 1.0}))
    assert len(kept["runs"]) == 1
    assert kept["told"][-1] == ("run0", {}, [("a", 1.0, 1)])


def test_without_the_package_the_option_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"--mlflow needs .* pip install mlflow"):
        logger_of()


def test_the_real_package_writes_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    write_image(tmp_path / "results.png", np.zeros((8, 8, 3), np.uint8))
    for epoch in range(2):
        logger = logger_of()
        logger.on_train_start(start(tmp_path, resumed=epoch))
        logger.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row={"metrics/mAP_0.5:0.95": 0.25 * (epoch + 1)}))
    logger.on_train_end(TrainEnd(save_dir=tmp_path, best=None, epochs_run=1))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.search_experiments()[0].experiment_id])
    history = client.get_metric_history(run.info.run_id, "metrics/mAP_0.5:0.95")
    assert [(point.step, point.value) for point in history] == [(0, 0.25), (1, 0.5)]
    assert run.data.params["hyp.lr0"] == "0.01"
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["results.png"]
