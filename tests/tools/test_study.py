"""A study from the plan to the results, interrupted and gone on with."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from tools.study import worker
from tools.study.__main__ import StudyOptions, main
from tools.study.plan import load_plan
from tools.study.worker import Unfinished, WorkerOptions
from utils.evaluation.routing_scores import CONDITIONS

SMALL = {"imgsz": 64, "batch_size": 4, "epochs": 2, "workers": 0, "device": "cpu", "noautoanchor": True}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """A plan of two arms on eight images in two conditions."""
    folder = tmp_path_factory.mktemp("plan")
    data = make_dataset(folder / "set", n_train=8, n_val=4)
    lines = [f"{i}.png,{'odd' if i % 2 else 'even'}" for i in range(8)]
    (folder / "set" / CONDITIONS).write_text("\n".join(["image,condition", *lines]) + "\n", encoding="utf-8")
    data.write_text(data.read_text(encoding="utf-8") + "test: images/train\n", encoding="utf-8")
    arms = {
        "static": {"cfg": "yolov5n.yaml"},
        "dynamic": {"cfg": "yolov5n_dynamic_head.yaml", "hyp": {"temperature_start": 1}},
    }
    content = {
        "data": {"mine": str(data)}, "baselines": ["static"], "train": SMALL, "hyp": {"warmup_epochs": 0},
        "arms": {name: {**arm, "model": {"width_multiple": 0.125}} for name, arm in arms.items()},
        "phases": [
            {"name": "only", "data": ["mine"], "arms": "all", "lr0": [0.01], "seeds": [3], "score": ["val", "test"]}
        ],
    }  # fmt: skip
    (folder / "plan.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "plan.yaml"


@pytest.fixture(scope="module")
def done(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the whole plan."""
    output = tmp_path_factory.mktemp("study")
    assert main(StudyOptions(plan=str(plan), output=str(output), jobs=2)) == 0
    return output


def rows_of(output: Path) -> dict[str, dict[str, str]]:
    with (output / "results.csv").open(newline="", encoding="utf-8") as stream:
        return {row["arm"]: row for row in csv.DictReader(stream)}


def test_each_finished_run_is_a_row_with_scores_settings_and_commit(done: Path) -> None:
    rows = rows_of(done)
    assert set(rows) == {"static", "dynamic"}
    for row in rows.values():
        assert 0 <= float(row["val_map"]) <= 1 and 0 <= float(row["test_map"]) <= 1 and row["commit"]
        assert json.loads(row["settings"])["train"] == SMALL and float(row["gflops"]) > 0
    assert rows["static"]["test_entropy"] == rows["static"]["test_map_mean_pi"] == ""
    assert 0 < float(rows["dynamic"]["test_entropy"]) <= 1
    assert all(rows["dynamic"][f"test_map_{kind}_pi"] for kind in ("mean", "same", "other"))


def test_the_summary_and_its_charts_are_written(done: Path) -> None:
    assert "## only: mine (test, 2 runs)" in (done / "summary.md").read_text(encoding="utf-8")
    assert (done / "only-mine.png").stat().st_size > 1000


def test_what_is_done_is_not_done_again_and_a_lost_table_is_remade(
    done: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(done)
    (done / "results.csv").unlink()
    monkeypatch.setattr("tools.study.__main__.Pool._one", lambda *_: pytest.fail("started a run again"))
    assert main(StudyOptions(plan=str(plan), output=str(done))) == 0
    assert rows_of(done) == before


def a_run(done: Path, folder: Path) -> WorkerOptions:
    """A new run like the dynamic one of the study."""
    (folder / "run").mkdir()
    task = next(done.glob("runs/only-mine-dynamic-*/run.json"))
    (folder / "run/run.json").write_bytes(task.read_bytes())
    return WorkerOptions(folder=str(folder / "run"))


def without_figures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("utils.loggers.selection.PlotsLogger", type("Silent", (train_callback(),), {}))
    patch.setattr("utils.evaluation.observers.plot_batch", lambda *_: None)
    patch.setattr("utils.training.finish.save_plots", lambda *_: None)


def train_callback() -> type:
    from utils.core.callbacks import Callback

    return Callback


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    without_figures(monkeypatch)
    options, original, calls = a_run(done, tmp_path), train.report_batch, []

    def stop_after_three(*given: Any) -> None:
        original(*given)
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train, "report_batch", stop_after_three)
    with pytest.raises(Unfinished):
        worker.main(options)
    assert not (tmp_path / "run/result.json").exists()
    worker.main(options)
    assert len(calls) == 4  # two epochs of two batches, none of them twice
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert f"{result['test_map']:.6g}" == rows_of(done)["dynamic"]["test_map"]


def test_a_run_whose_losses_run_away_is_a_result_without_a_score(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    options = a_run(done, tmp_path)
    file = tmp_path / "run/run.json"
    task = json.loads(file.read_text(encoding="utf-8"))
    task["hyp"]["lr0"] = 1e9
    file.write_text(json.dumps(task), encoding="utf-8")
    without_figures(monkeypatch)
    worker.main(options)
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert "val_map" not in result and "finite" in result["error"]


def test_the_list_of_phases_starts_nothing(plan: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert main(StudyOptions(plan=str(plan), output=str(tmp_path), list=True)) == 0
    assert "0 of   2 runs done: mine" in caplog.text and load_plan(plan).phases[0].name in caplog.text
    assert not (tmp_path / "runs").exists()
