"""Routing of a training run and of the command, on a set of four small images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.yolo import Model
from tools.routing import TOO_EARLY, RoutingOptions, main, require_dynamic
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config.cli import parse, run_script
from utils.core.callbacks import Callback, EpochStart, ValEnd
from utils.core.errors import InputError
from utils.loggers.results_csv import V61_COLUMNS
from utils.training.session import Session

DYNAMIC = "yolov5n_dynamic.yaml"
COLUMNS = ("routing/10_entropy", "routing/14_entropy")
Rows = Callable[[Path], list[dict[str, str]]]
Training = Callable[..., Session]


def routing(folder: Path) -> list[dict[str, str]]:
    with (folder / "routing.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def key(row: dict[str, str]) -> tuple[str, str]:
    return row["epoch"], row["layer"]


# Training -------------------------------------------------------------------------------------------------------------


def test_a_dynamic_run_notes_its_routing_each_epoch(trained: Path) -> None:
    rows = routing(trained)
    assert [key(row) for row in rows] == [("0", "10"), ("0", "14"), ("1", "10"), ("1", "14")]
    assert [row["T"] for row in rows] == ["34", "34", "1", "1"]
    for row in rows:
        assert row["samples"] == "4"
        for name in ("mean", "dominant"):
            assert sum(float(row[f"{name}_{k}"]) for k in range(int(row["K"]))) == pytest.approx(1, abs=1e-4)


def test_the_entropies_follow_the_columns_of_v61(trained: Path, results: Rows) -> None:
    rows = results(trained)
    header = list(rows[0])
    assert tuple(header[: len(V61_COLUMNS)]) == V61_COLUMNS
    assert tuple(header[-2:]) == COLUMNS
    entropies = {key(row): row["entropy"] for row in routing(trained)}
    for row in rows:
        assert [row[name] for name in COLUMNS] == [entropies[row["epoch"], layer] for layer in ("10", "14")]


def test_the_course_is_drawn(trained: Path) -> None:
    assert (trained / "routing.png").stat().st_size > 0


def test_a_static_run_has_no_routing(tmp_path: Path, training: Training, results: Rows) -> None:
    events: list[ValEnd] = []

    class Watch(Callback):
        def on_val_end(self, event: ValEnd) -> None:
            events.append(event)

    folder = training(tmp_path, lambda session: session.callbacks.add(Watch()), files=False).save_dir
    assert not (folder / "routing.csv").exists()
    assert [name for name in results(folder)[0] if name.startswith("routing")] == []
    assert [event.routing for event in events] == [()]


def test_epochs_without_validation_leave_their_cells_empty(tmp_path: Path, training: Training, results: Rows) -> None:
    folder = training(tmp_path, cfg=DYNAMIC, epochs=2, noval=True, files=False).save_dir
    rows = results(folder)
    assert [[row[name] != "" for name in COLUMNS] for row in rows] == [[False, False], [True, True]]
    assert [key(row) for row in routing(folder)] == [("1", "10"), ("1", "14")]


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path, training: Training) -> None:
    class Interrupt(Callback):
        def on_train_epoch_start(self, event: EpochStart) -> None:
            if event.epoch == 1:
                raise KeyboardInterrupt

    folders: list[Path] = []

    def hook(session: Session) -> None:
        folders.append(session.save_dir)
        session.callbacks.add(Interrupt())

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, hook, cfg=DYNAMIC, epochs=2)
    before = routing(folders[0])
    training(tmp_path, resume=str(folders[0] / "weights/last.pt"))
    after = routing(folders[0])
    assert [key(row) for row in after] == [("0", "10"), ("0", "14"), ("1", "10"), ("1", "14")]
    assert after[:2] == before


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, trained: Path, toy: Path) -> Path:
    """Run folder of the command on the training run's checkpoint, in full precision."""
    project = tmp_path_factory.mktemp("measured")
    options: dict[str, Any] = {"weights": str(trained / "weights/resume.pt"), "data": str(toy), "device": "cpu"}
    main(RoutingOptions(**options, imgsz=64, batch_size=3, workers=0, project=str(project)))
    return project / "exp"


def test_the_command_leaves_a_table_figures_and_images(measured: Path) -> None:
    names = {"routing.csv", "routing.json", "routing_layers.png", "routing_classes.png", "routing_dominant.png"}
    assert {path.name for path in measured.iterdir()} == names


def test_the_figures_are_those_of_the_last_validation(measured: Path, trained: Path) -> None:
    content = json.loads((measured / "routing.json").read_text(encoding="utf-8"))
    expected = [row for row in routing(trained) if row["epoch"] == "1"]
    assert [layer["layer"] for layer in content["layers"]] == ["10", "14"]
    for layer, row, line in zip(content["layers"], expected, routing(measured)):
        assert (layer["samples"], layer["kernels"], layer["temperature"]) == (4, 4, 1)
        assert layer["entropy"] == pytest.approx(float(row["entropy"]), abs=1e-5)
        assert float(line["entropy"]) == pytest.approx(layer["entropy"], rel=1e-5)


def test_the_classes_are_there_by_name(measured: Path) -> None:
    layer = json.loads((measured / "routing.json").read_text(encoding="utf-8"))["layers"][0]
    assert [entry["name"] for entry in layer["per_class"]] == ["red", "green"]
    # One box an image, two images a class: the mean of the classes is the mean of all.
    means = [entry["mean"] for entry in layer["per_class"]]
    assert [sum(pair) / 2 for pair in zip(*means)] == pytest.approx(layer["mean"], abs=1e-6)


def test_a_model_without_dynamic_layers_is_refused_with_the_variants() -> None:
    with pytest.raises(InputError, match=r"best\.pt: .*no dynamic layers.*yolov5n_dynamic\.yaml"):
        require_dynamic(Model("yolov5n.yaml"), Path("best.pt"))


@pytest.mark.parametrize(
    "words", [["--batch-size", "0"], ["--imgsz", "8"], ["--workers", "-1"], ["--name", ""], ["--name", "../a"]]
)
def test_options_out_of_range_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(RoutingOptions, words)
    assert words[0] in capsys.readouterr().err


@pytest.mark.usefixtures("log_handlers_restored")
def test_missing_weights_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run_script(main, RoutingOptions, ["--weights", str(tmp_path / "none.pt"), "--device", "cpu"]) == 1
    assert "none.pt" in caplog.text


@pytest.mark.parametrize(("epochs", "steps", "early"), [(1, 900, True), (2, 99, True), (2, 100, False), (0, 0, False)])
def test_after_few_steps_it_is_too_early_to_tell(
    tmp_path: Path, trained: Path, toy: Path, caplog: pytest.LogCaptureFixture, epochs: int, steps: int, early: bool
) -> None:
    checkpoint = load_checkpoint(trained / "weights/best.pt")
    checkpoint.train_state["epoch"], checkpoint.ema_updates = epochs - 1, steps
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    options: dict[str, Any] = {"weights": str(tmp_path / "a.pt"), "data": str(toy), "device": "cpu"}
    with caplog.at_level("INFO"):
        main(RoutingOptions(**options, imgsz=64, workers=0, project=str(tmp_path)))
    content = json.loads((tmp_path / "exp/routing.json").read_text(encoding="utf-8"))
    assert {layer["verdict"] == TOO_EARLY for layer in content["layers"]} == {early}
    assert ("too early to say whether" in caplog.text) is early
    assert f"{'1 epoch' if epochs == 1 else f'{epochs} epochs'}, {steps} optimizer steps" in caplog.text or not early


def test_with_foreign_the_score_with_other_images_weights_is_shown(
    tmp_path: Path, trained: Path, toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"weights": str(trained / "weights/best.pt"), "data": str(toy), "device": "cpu"}
    with caplog.at_level("INFO"):
        main(RoutingOptions(**options, imgsz=64, workers=0, project=str(tmp_path), foreign=True))
    assert "with the mean weights of all images" in caplog.text and "with those of another image" in caplog.text
    content = json.loads((tmp_path / "exp/routing.json").read_text(encoding="utf-8"))
    assert set(content["map_foreign"]) == {"mean", "any"} and 0 <= content["map"] <= 1
