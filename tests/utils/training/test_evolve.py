"""The course of --evolve with a stand-in for the training: what is tried, written, refused and gone on with."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from utils.config.hyp import Hyp
from utils.config.options import TrainOptions
from utils.config.paths import ROOT
from utils.core.callbacks import FitEpochEnd
from utils.core.errors import InputError, UntrainableError
from utils.plots.evolve import EVOLVE_METRICS, plot_evolve, plot_evolve_course
from utils.training import evolve as module
from utils.training.evolve import LastRow, TrialStopped, evolve
from utils.training.evolve_files import fitness_of
from utils.training.evolve_space import V61_GENES

pytest.importorskip("optuna")


class Training:
    """Stands for the training of a trial: the fitness is lr0. ``faults`` are raised in place of it, by trial."""

    def __init__(self, **faults: Exception) -> None:
        self.faults = {int(name[1:]): fault for name, fault in faults.items()}
        self.seen: list[TrainOptions] = []

    def __call__(self, options: TrainOptions) -> dict[str, float]:
        self.seen.append(options)
        fault = self.faults.pop(len(self.seen) - 1, None)
        if fault is not None:
            raise fault
        lr0 = Hyp.load(options.hyp).lr0
        return dict.fromkeys(EVOLVE_METRICS[:4], lr0) | dict.fromkeys(EVOLVE_METRICS[4:], 0.5)

    @property
    def tried(self) -> list[Hyp]:
        return [Hyp.load(options.hyp) for options in self.seen]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Without the plots and the collection of garbage, which take longer than the rest."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_evolve", "plot_evolve_course"):
            patch.setattr(f"utils.training.evolve_files.{name}", lambda _: None)
        patch.setattr(module.gc, "collect", lambda: 0)
        yield


def options_in(project: Path, **given: Any) -> TrainOptions:
    return TrainOptions(**{"cfg": "yolov5n.yaml", "evolve": 2, "project": str(project), "name": "s", **given})


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., TrainOptions]:
    return partial(options_in, tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training]:
    """The run folder of four trials at 320 pixels, and what was trained."""
    project, training = tmp_path_factory.mktemp("finished"), Training()
    assert evolve(options_in(project, evolve=4, imgsz=320), training) == 0
    return project / "s", training


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "evolve.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


Finished = tuple[Path, Training]


def test_the_table_begins_with_the_columns_of_v61(finished: Finished) -> None:
    rows = table(finished[0])
    assert list(rows[0]) == [*EVOLVE_METRICS, *V61_GENES, "fitness", "trial"]
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["fitness"] for row in rows] == [row["lr0"] for row in rows]


def test_the_first_trial_has_the_values_given_and_the_others_are_changed(finished: Finished) -> None:
    tried = finished[1].tried
    assert tried[0] == Hyp()
    assert all(hyp != Hyp() for hyp in tried[1:])
    assert {hyp.mixup for hyp in tried} == {0.0}


def test_a_trial_validates_and_saves_at_the_end_only_in_a_folder_of_its_own(finished: Finished) -> None:
    folder, training = finished
    for number, seen in enumerate(training.seen):
        assert (seen.noval, seen.nosave, seen.exist_ok, seen.resume, seen.imgsz) == (True, True, True, False, 320)
        assert (Path(seen.project) / seen.name).relative_to(folder) == Path("trials") / str(number)


def test_the_best_hyper_parameters_can_be_trained_with_and_say_where_they_are_from(finished: Finished) -> None:
    folder, training = finished
    file = folder / "hyp_evolve.yaml"
    best = max(range(4), key=lambda i: training.tried[i].lr0)
    assert Hyp.load(file) == training.tried[best]
    assert file.read_text(encoding="utf-8").startswith(f"# The best of 4 trials of --evolve: trial {best}, fitness 0.0")


def test_the_options_of_the_search_are_recorded(finished: Finished) -> None:
    recorded = yaml.safe_load((finished[0] / "opt.yaml").read_text(encoding="utf-8"))
    assert (recorded["imgsz"], recorded["evolve"]) == (320, 4)


def test_an_option_that_would_make_it_another_search_is_refused(finished: Finished) -> None:
    with pytest.raises(InputError, match=r"this run has --imgsz 320, not 640"):
        evolve(options_in(finished[0].parent, exist_ok=True, imgsz=640), Training())


def test_keys_that_the_file_lacks_get_their_defaults(tmp_path: Path, options: Any) -> None:
    """Case B34."""
    hyp = tmp_path / "short.yaml"
    hyp.write_text("lr0: 0.02\nnominal_batch: 16\n", encoding="utf-8")
    training = Training()
    evolve(options(hyp=str(hyp), evolve=1), training)
    row = table(tmp_path / "s")[0]
    assert (row["lr0"], row["momentum"], row["copy_paste"]) == ("0.02", "0.937", "0")
    assert [seen.nominal_batch for seen in training.tried] == [16]
    assert "anchors" not in row


def test_a_number_of_anchors_in_the_file_is_searched_as_well(tmp_path: Path, options: Any) -> None:
    hyp = tmp_path / "anchors.yaml"
    hyp.write_text("anchors: 3\n", encoding="utf-8")
    evolve(options(hyp=str(hyp), evolve=1), Training())
    assert table(tmp_path / "s")[0]["anchors"] == "3"
    evolve(options(hyp=str(hyp), noautoanchor=True, name="t", evolve=1), Training())
    assert "anchors" not in table(tmp_path / "t")[0]


@pytest.mark.parametrize(("cfg", "searched"), [("yolov5n.yaml", False), ("yolov5n_dynamic.yaml", True)])
def test_the_temperature_is_searched_for_dynamic_models_only(
    tmp_path: Path, options: Any, cfg: str, searched: bool
) -> None:
    evolve(options(cfg=cfg, evolve=1), Training())
    assert ("temperature_step" in table(tmp_path / "s")[0]) is searched


def test_a_trial_that_cannot_be_trained_is_recorded_and_the_search_goes_on(
    tmp_path: Path, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert evolve(options(), Training(_1=UntrainableError("the loss became nan"))) == 0
    failed = table(tmp_path / "s")[1]
    assert (failed["metrics/mAP_0.5"], failed["val/box_loss"], failed["fitness"]) == ("0", "nan", "0")
    assert float(failed["lr0"]) > 0
    assert "trial 1 could not be trained and counts as failed: the loss became nan" in caplog.text


def test_a_search_without_any_result_says_why(options: Any) -> None:
    training = Training(_0=UntrainableError("broke"), _1=UntrainableError("broke again"))
    with pytest.raises(InputError, match="no trial of 2 could be trained; the last: broke again"):
        evolve(options(), training)


def test_the_same_command_goes_on_until_there_are_as_many_trials(tmp_path: Path, options: Any) -> None:
    first, second, third = Training(), Training(), Training()
    evolve(options(exist_ok=True, evolve=1), first)
    evolve(options(exist_ok=True), second)
    evolve(options(exist_ok=True), third)
    assert (len(first.seen), len(second.seen), len(third.seen)) == (1, 1, 0)
    assert len(table(tmp_path / "s")) == 2


def test_resume_takes_the_options_of_the_search(tmp_path: Path, options: Any) -> None:
    evolve(options(imgsz=320, evolve=1), Training())
    training = Training()
    evolve(TrainOptions(evolve=2, resume=str(tmp_path / "s"), workers=1, evolve_sampler="tpe"), training)
    (seen,) = training.seen
    assert (seen.imgsz, seen.workers, seen.cfg, seen.resume) == (320, 1, "yolov5n.yaml", False)


def test_what_is_no_search_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--evolve --resume .*: not the run folder of a search"):
        evolve(TrainOptions(evolve=2, resume=str(tmp_path)), Training())
    with pytest.raises(FileNotFoundError, match="--evolve --resume: no search to continue"):
        evolve(TrainOptions(evolve=2, resume=True, project=str(tmp_path)), Training())


def test_a_bare_resume_takes_the_newest_search(tmp_path: Path, options: Any) -> None:
    evolve(options(evolve=1), Training())
    training = Training()
    evolve(TrainOptions(evolve=2, resume=True, project=str(tmp_path)), training)
    assert len(training.seen) == 1


def test_a_stopped_trial_is_not_lost_and_comes_first_when_the_search_goes_on(
    tmp_path: Path, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stopped = Training(_1=TrialStopped())
    assert evolve(options(), stopped) == 0
    assert f"python train.py --evolve 2 --resume {tmp_path / 's'}" in caplog.text
    assert len(table(tmp_path / "s")) == 1
    later = Training()
    evolve(TrainOptions(evolve=2, resume=str(tmp_path / "s")), later)
    assert len(later.seen) == 1
    assert later.tried[0] == stopped.tried[1]
    assert later.seen[0].name == stopped.seen[1].name == "1"


def test_a_trial_with_a_checkpoint_is_resumed_from_it(tmp_path: Path, options: Any) -> None:
    evolve(options(evolve=1), Training(_0=TrialStopped()))
    last = tmp_path / "s/trials/0/weights/last.pt"
    last.parent.mkdir()
    last.touch()
    seen: list[TrainOptions] = []

    def resumed(given: TrainOptions) -> dict[str, float]:
        seen.append(given)
        return dict.fromkeys(EVOLVE_METRICS, 0.25)

    evolve(TrainOptions(evolve=1, resume=str(tmp_path / "s"), device="cpu"), resumed)
    assert (seen[0].resume, seen[0].device) == (str(last), "cpu")
    assert not last.parent.exists()
    assert table(tmp_path / "s")[0]["fitness"] == "0.25"


def test_wrong_input_ends_the_search_which_can_go_on_after_the_cure(tmp_path: Path, options: Any) -> None:
    with pytest.raises(InputError, match="an image is gone"):
        evolve(options(), Training(_1=InputError("an image is gone")))
    training = Training()
    evolve(options(exist_ok=True), training)
    assert len(training.seen) == 1
    assert len(table(tmp_path / "s")) == 2


def test_torchrun_is_refused_with_what_does_the_same(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"--evolve does not run under torchrun; .* several times with --exist-ok"):
        evolve(options(), Training())


def test_a_wrong_hyper_parameter_file_leaves_no_folder_behind(tmp_path: Path, options: Any) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        evolve(options(hyp="none.yaml"), Training())
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_v61_without_a_study_is_gone_on_with(tmp_path: Path, options: Any) -> None:
    """Case B34: a search continues from its evolve.csv."""
    names = [*EVOLVE_METRICS, *V61_GENES]
    values = [[0.5, 0.5, 0.4, 0.3, 0.1, 0.1, 0.1, 0.05, *(getattr(Hyp(), name) for name in list(V61_GENES)[1:])]]
    lines = [",".join(f"{name:>20}" for name in names)]
    lines += [",".join(f"{value:>20.5g}" for value in row) for row in values]
    (tmp_path / "s").mkdir()
    (tmp_path / "s/evolve.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    training = Training()
    evolve(options(evolve=2, exist_ok=True), training)
    assert len(training.seen) == 1
    assert 0.015 <= training.tried[0].lr0 <= 0.1  # a child of the row, whose lr0 is 0.05
    assert table(tmp_path / "s")[0]["fitness"] == "0.31"


def test_a_line_of_the_table_that_cannot_be_read_is_named(tmp_path: Path, options: Any) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/evolve.csv").write_text("metrics/precision,lr0\n0.1,abc\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"evolve\.csv:2: column 'lr0': 'abc' is not a number"):
        evolve(options(exist_ok=True), Training())


def test_searches_lie_in_runs_evolve_unless_said_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOT", tmp_path)
    evolve(options_in(tmp_path / "runs/train", evolve=1), Training())
    assert (tmp_path / "runs/evolve/s/evolve.csv").exists()
    assert not (tmp_path / "runs/train").exists()


def test_the_fitness_is_that_of_v61() -> None:
    row = dict(zip(EVOLVE_METRICS[:4], (0.9, 0.8, 0.5, 0.25)))
    assert fitness_of(row) == pytest.approx(0.1 * 0.5 + 0.9 * 0.25)
    assert np.isnan(fitness_of({}))


def test_of_all_epochs_the_last_row_counts() -> None:
    last = LastRow()
    for epoch in range(2):
        last.on_fit_epoch_end(FitEpochEnd(epoch=epoch, row={"a": epoch}))
    assert last.row == {"a": 1}


@pytest.mark.parametrize("failed", [False, True])
def test_the_plots_are_drawn_from_the_table_alone(tmp_path: Path, failed: bool) -> None:
    lines = [",".join([*EVOLVE_METRICS, "lr0", "mixup"]), "0.1,0.2,0.3,0.2,1,1,1,0.01,0"]
    lines += ["0,0,0,0,nan,nan,nan,0.02,0" if failed else "0.1,0.2,0.4,0.3,1,1,1,0.02,0"]
    (tmp_path / "evolve.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for draw in (plot_evolve, plot_evolve_course):
        assert draw(tmp_path / "evolve.csv").stat().st_size > 1000


def test_a_file_of_another_kind_is_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch,lr\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no column 'metrics/precision'; expected an evolve\.csv"):
        plot_evolve(tmp_path / "results.csv")


def strangers(folder: Path, **changes: Any) -> Path:
    """The run folder of a search of one trial, as a stranger may hand it over."""
    assert evolve(options_in(folder, evolve=1), Training()) == 0
    file = folder / "s/opt.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    return folder / "s"


@pytest.mark.parametrize("how", ["resume", "exist_ok"])
def test_a_model_yaml_that_the_folder_names_runs_no_imports(tmp_path: Path, how: str) -> None:
    (tmp_path / f"evil_{how}.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    content = (ROOT / "models/yolov5n.yaml").read_text()
    (tmp_path / "evil.yaml").write_text(f"imports: evil_{how}.py\n{content}")
    folder = strangers(tmp_path, cfg=str(tmp_path / "evil.yaml"))
    again = {"resume": str(folder)} if how == "resume" else {"project": str(tmp_path), "name": "s", "exist_ok": True}
    with pytest.raises(InputError, match=rf"evil\.yaml: this model needs layers from evil_{how}\.py: pass --modules"):
        evolve(TrainOptions(evolve=2, **again), Training())
    assert not (tmp_path / "marker").exists()
    named = TrainOptions(evolve=2, cfg=str(tmp_path / "evil.yaml"), **again)  # a person names it
    assert evolve(named, Training()) == 0
    assert (tmp_path / "marker").exists()


def test_what_a_folder_records_has_nothing_written_elsewhere(tmp_path: Path) -> None:
    folder = strangers(
        tmp_path, cache_dir=str(tmp_path / "elsewhere"), project=str(tmp_path / "elsewhere"), name="x",
        modules=["evil.py"], download=True, allow_scripts=True,
    )  # fmt: skip
    training = Training()
    assert evolve(TrainOptions(evolve=2, resume=str(folder)), training) == 0
    (seen,) = training.seen
    assert (seen.cache_dir, seen.modules, seen.download, seen.allow_scripts) == ("", (), False, False)
    assert Path(seen.project, seen.name) == folder / "trials/1"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "many"}, "recorded option epochs is 'many'"),
        ({"imgsz": [640]}, "recorded option imgsz"),
        ({"imgsz": True}, "recorded option imgsz"),
        ({"freeze": {"a": 1}}, "recorded option freeze"),
        ({"data": 7}, "recorded option data is '7'"),
        ({"single_cls": "yes"}, "recorded option single_cls"),
        ({"label_smoothing": float("nan")}, "recorded option label_smoothing"),
        ({"epochs": -1}, r"opt\.yaml: --epochs -1 is too small"),
    ],
)
def test_recorded_options_of_a_wrong_kind_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = strangers(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        evolve(TrainOptions(evolve=2, resume=str(folder)), Training())
    assert str(folder / "opt.yaml") in str(caught.value)


def test_a_queued_trial_with_a_folder_elsewhere_removes_nothing(tmp_path: Path) -> None:
    folder, victim = strangers(tmp_path), tmp_path / "victim/weights/last.pt"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    study = module.open_study(folder, module.SearchSpace.around(Hyp(), ()), "genetic", 0)
    study.enqueue_trial({}, user_attrs={"folder": "../../victim"})
    with pytest.raises(InputError, match=r"study\.db: .*has the folder '\.\./\.\./victim', which is no number"):
        evolve(TrainOptions(evolve=2, resume=str(folder)), Training())
    assert victim.read_text() == "mine"


def test_of_a_finished_trial_only_the_checkpoint_that_it_went_on_from_is_removed(tmp_path: Path) -> None:
    def train(options: TrainOptions) -> dict[str, float]:
        weights = Path(options.project, options.name, "weights")
        weights.mkdir()
        (weights / "last.pt").touch()
        (weights / "notes.txt").touch()
        return dict.fromkeys(EVOLVE_METRICS, 0.5)

    assert evolve(options_in(tmp_path, evolve=1), train) == 0
    assert [file.name for file in (tmp_path / "s/trials/0/weights").iterdir()] == ["notes.txt"]
