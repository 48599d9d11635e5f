"""val.py and detect.py as their users call them, on a model trained for two epochs on four small images."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import detect
import val
from models.dynamic import set_temperature
from models.yolo import Model
from utils.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from utils.config.options import DetectOptions, ValOptions
from utils.core.errors import InputError
from utils.core.nms import non_max_suppression


@pytest.fixture(scope="session")
def best(trained: Path) -> Path:
    return trained / "weights/best.pt"


@pytest.fixture
def score(best: Path, tmp_path: Path):
    def run(**given: Any) -> Path:
        usual = {"weights": (str(best),), "imgsz": 64, "workers": 0, "batch_size": 4, "device": "cpu"}
        val.main(ValOptions(**{**usual, "project": str(tmp_path / "val"), **given}))
        return max((tmp_path / "val").iterdir(), key=lambda p: p.stat().st_mtime)

    return run


@pytest.fixture
def find(best: Path, tmp_path: Path):
    """Every cell is a detection at confidence 0, so that an untrained model finds something."""

    def run(source: Path | str, **given: Any) -> Path:
        usual = {"weights": (str(best),), "imgsz": (64,), "conf_thres": 0.0, "max_det": 3, "device": "cpu"}
        detect.main(DetectOptions(**{**usual, "source": str(source), "project": str(tmp_path / "out"), **given}))
        return max((tmp_path / "out").iterdir(), key=lambda p: p.stat().st_mtime)

    return run


@pytest.fixture
def images(tmp_path: Path, toy: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep/er").mkdir(parents=True)
    source = toy.parent / "images/val"
    shutil.copy(source / "0.png", folder / "a.png")
    shutil.copy(source / "1.png", folder / "b [1].PNG")
    shutil.copy(source / "2.png", folder / "deep/er/图片.png")
    return folder


def test_val_writes_its_plots_and_tables(score, caplog) -> None:
    with caplog.at_level("INFO"):
        folder = score(verbose=True)
    names = {p.name for p in folder.iterdir()}
    assert {"confusion_matrix.png", "val_batch0_labels.jpg", "val_batch0_pred.jpg"} <= names
    assert {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"} <= names
    assert {"metrics.csv", "metrics.json", "images.csv", "worst.jpg"} <= names
    assert "mAP@.5:.95" in caplog.text and "dynamic layers at T=" in caplog.text


def test_val_writes_label_files_that_read_back(score) -> None:
    folder = score(save_txt=True, save_conf=True) / "labels"
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == ["0.txt", "1.txt", "2.txt", "3.txt"]
    rows = np.loadtxt(files[0], ndmin=2)
    assert rows.shape[1] == 6 and (rows[:, 1:] >= 0).all() and (rows[:, 1:] <= 1).all()
    assert np.loadtxt(score(save_txt=True) / "labels/0.txt", ndmin=2).shape[1] == 5


def figures_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory, make_dataset, eager_weights: Path) -> dict[str, Any]:
    """Options that score six images of three shapes with a model that sees much."""
    folder = tmp_path_factory.mktemp("shapes")
    yaml = make_dataset(folder, n_val=6, names=("ant", "bee"))
    for i, hw in enumerate([(64, 64), (40, 64), (64, 30), (60, 64), (40, 60), (64, 32)]):
        file = folder / f"images/val/{i}.png"
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), hw[::-1]))
    return {"weights": (str(eager_weights),), "data": str(yaml)}


def test_batch_size_does_not_change_the_result(score, shapes) -> None:
    first, *others = [figures_of(score(batch_size=size, **shapes)) for size in (4, 1, 7)]
    assert first["all"]["labels"] == 6 and first["detections"] > 20
    for other in others:
        assert other["detections"] == first["detections"]
        assert other["confusion_matrix"] == first["confusion_matrix"]
        for name in ("ap50", "ap50_95", "best_f1"):
            assert other["all"][name] == pytest.approx(first["all"][name], abs=1e-4)


def test_squares_can_be_asked_for(score, shapes, monkeypatch) -> None:
    seen: set[tuple[int, ...]] = set()
    original = Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, x: seen.add(tuple(x.shape[2:])) or original(self, x))
    score(rect=False, batch_size=2, **shapes)
    assert (64, 64) in seen and not seen & {(64, 96), (96, 64)}


def test_validation_in_training_and_val_give_the_same_figures(trained: Path, score, results) -> None:
    row = results(trained)[-1]
    assert figures_of(score(weights=(str(trained / "weights/last.pt"),)))["all"]["ap50"] == pytest.approx(
        float(row["metrics/mAP_0.5"]), abs=2e-3
    )  # the checkpoint is in half precision


def test_json_results_have_the_numbers_of_a_file_of_ones_own(score, shapes, tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    made = score(save_json=True, **shapes)
    content = json.loads((made / "annotations.json").read_text(encoding="utf-8"))
    for image in content["images"]:
        image["id"] += 100
    for item in content["annotations"]:
        item["image_id"] += 100
        item["category_id"] += 5
    for item in content["categories"]:
        item["id"] += 5
    (tmp_path / "own.json").write_text(json.dumps(content), encoding="utf-8")
    own = score(save_json=True, annotations=str(tmp_path / "own.json"), **shapes)
    assert figures_of(own)["coco"] == figures_of(made)["coco"] and figures_of(own)["coco"]["AP"] is not None
    rows = [json.loads((folder / "eager_predictions.json").read_text(encoding="utf-8")) for folder in (made, own)]
    assert len(rows[0]) == figures_of(made)["detections"]
    assert {row["image_id"] for row in rows[1]} <= set(range(100, 106))
    assert {row["category_id"] for row in rows[1]} == {5, 6}
    assert [row["bbox"] for row in rows[0]] == [row["bbox"] for row in rows[1]]


def test_a_missing_coco_evaluator_costs_a_warning(score, shapes, monkeypatch, caplog) -> None:
    monkeypatch.setattr(val, "coco_tool", lambda: None)
    folder = score(save_json=True, **shapes)
    assert "pip install faster-coco-eval" in caplog.text
    assert figures_of(folder)["coco"] is None and (folder / "eager_predictions.json").is_file()


def test_mixed_in_labels_are_in_the_files_and_not_in_the_scores(score, shapes) -> None:
    plain, mixed = score(save_txt=True, save_conf=True, **shapes), score(save_hybrid=True, save_conf=True, **shapes)
    assert figures_of(mixed)["all"] == figures_of(plain)["all"]
    label = np.loadtxt(Path(shapes["data"]).parent / "labels/val/0.txt", ndmin=2)[0]
    rows = np.loadtxt(mixed / "labels/0.txt", ndmin=2)
    assert rows[0, 5] == 1 and np.loadtxt(plain / "labels/0.txt", ndmin=2)[0, 5] < 1
    np.testing.assert_allclose(rows[0, :5], label, atol=1e-3)


def test_speed_times_each_model_by_itself(score, shapes, best: Path, eager_weights: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        folder = score(task="speed", weights=(str(best), str(eager_weights)), save_txt=True, data=shapes["data"])
    assert [file.name for file in folder.iterdir()] == ["speed.csv"]
    assert [row["model"] for row in read_csv(folder / "speed.csv")] == ["best", "eager"]
    assert "the --save options do nothing" in caplog.text and "conf 0.25, IoU 0.45" in caplog.text
    table = [line.split()[0] for line in caplog.messages if line.split()[:1] in (["model"], ["best"], ["eager"])]
    assert table == ["model", "best", "eager"]


def test_a_study_scores_each_model_at_each_size(score, shapes, best: Path, eager_weights: Path) -> None:
    both = (str(best), str(eager_weights))
    folder = score(task="study", weights=both, study_sizes=(64, 96), data=shapes["data"])
    rows = read_csv(folder / "study.csv")
    assert [(row["model"], row["dynamic"], row["imgsz"]) for row in rows] == [
        ("best", "1", "64"), ("best", "1", "96"), ("eager", "0", "64"), ("eager", "0", "96"),
    ]  # fmt: skip
    assert (folder / "study.png").is_file() and (folder / "study_data_eager.txt").is_file()
    alone = figures_of(score(**shapes))["all"]
    assert float(rows[2]["mAP_0.5"]) == pytest.approx(alone["ap50"], abs=1e-4)


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_from_python_the_scores_are_those_of_coco_when_a_json_is_asked_for(
    shapes, tmp_path: Path, log_handlers_restored: None
) -> None:  # fmt: skip
    pytest.importorskip("faster_coco_eval")
    common = {**shapes, "imgsz": 64, "device": "cpu", "workers": 0, "project": tmp_path}
    figures, _, times = val.run(**common, save_json=True, name="json")
    coco = figures_of(tmp_path / "json")["coco"]
    assert figures[2:4] == (coco["AP50"], coco["AP"]) and len(times) == 3
    with pytest.raises(InputError, match="task 'study' is for the command line"):
        val.run(**common, task="study")


@pytest.mark.parametrize("v61", [False, True])
def test_pairs_can_be_those_of_v61(score, shapes, monkeypatch, v61: bool) -> None:
    used = []
    for name in ("match_as_v61", "match_predictions"):
        original = getattr(val, name)
        monkeypatch.setattr(val, name, lambda *given, name=name, match=original: used.append(name) or match(*given))
    score(v61_matching=v61, **shapes)
    assert set(used) == {"match_as_v61" if v61 else "match_predictions"}


def test_single_class_scores_all_classes_as_one(score, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(val, "log_metrics", lambda result, names, *_: seen.append((result, names)))
    score(single_cls=True)
    result, names = seen[0]
    assert names == ("item",)
    assert (result.labels_per_class.tolist(), result.images_per_class.tolist()) == ([4], [4])
    assert result.confusion.matrix.shape == (2, 2)


def test_half_precision_on_a_cpu_is_float32_with_one_warning(
    score, find, images: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    seen = set()
    original = Model.forward
    monkeypatch.setattr(Model, "forward", lambda model, x: (seen.add(x.dtype), original(model, x))[1])
    for run in (lambda: score(half=True), lambda: find(images, half=True)):
        caplog.clear()
        run()
        assert caplog.text.count("--half needs a GPU: running in float32") == 1
    assert seen == {torch.float32}


def test_val_refuses_a_split_that_the_yaml_does_not_name(score) -> None:
    with pytest.raises(InputError, match="test"):
        score(task="test")


def test_val_refuses_a_set_with_another_number_of_classes(score, make_dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 3 classes, the model 2"):
        score(data=str(make_dataset(tmp_path / "three", nc=3)))
    assert not (tmp_path / "val").exists()


def with_temperature(best: Path, path: Path, temperature: float) -> Path:
    model, checkpoint = load_model(best)
    set_temperature(model, temperature)
    checkpoint.model = model.state_dict()
    save_checkpoint(path, checkpoint)
    return path


def test_val_and_detect_run_at_the_temperature_of_the_file(best, score, find, images, tmp_path, monkeypatch) -> None:
    path, seen = with_temperature(best, tmp_path / "warm.pt", 13), []
    original = Model.forward

    def watched(model: Model, x: torch.Tensor) -> Any:
        seen.append(float(model.model[10].attention.temperature))
        return original(model, x)

    score(weights=(str(path),))  # build once: the stride probe of a new model runs at its start temperature
    seen.clear()
    monkeypatch.setattr(Model, "forward", watched)
    score(weights=(str(path),))
    assert seen[-1] == 13
    find(images, weights=(str(path),))
    assert seen[-1] == 13


def test_a_folder_is_searched_deeply_and_the_output_mirrors_it(find, images: Path) -> None:
    folder = find(images)
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*"))
    assert found == ["a.png", "b [1].PNG", "deep/er/图片.png"]
    before = cv2.imread(str(images / "a.png"))
    assert (cv2.imread(str(folder / "a.png")) != before).any()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.png", ["a.png"]),
        ("b [1].PNG", ["b [1].PNG"]),
        ("*.png", ["a.png"]),
        ("**/*.png", ["a.png", "deep/er/图片.png"]),
        ("list.txt", ["a.png", "deep/er/图片.png"]),
    ],
)
def test_sources(find, images: Path, source: str, expected: list[str]) -> None:
    (images / "list.txt").write_text("a.png\ndeep\\er\\图片.png\n", encoding="utf-8")
    folder = find(images / source)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*")) == expected


def test_label_files_hold_class_box_and_confidence(find, images: Path) -> None:
    folder = find(images / "a.png", save_txt=True, save_conf=True, max_det=2)
    rows = np.loadtxt(folder / "labels/a.txt", ndmin=2)
    assert rows.shape == (2, 6)
    assert np.loadtxt(find(images / "a.png", save_txt=True) / "labels/a.txt", ndmin=2).shape == (3, 5)


def test_crops_lie_in_a_folder_per_class(find, images: Path, best: Path) -> None:
    folder = find(images / "a.png", save_crop=True, nosave=True)
    crops = list((folder / "crops").rglob("*.jpg"))
    assert crops and {c.parent.name for c in crops} <= set(load_checkpoint(best).names)
    assert not (folder / "a.png").exists()


def test_only_the_asked_classes_are_found(find, images: Path) -> None:
    rows = np.loadtxt(find(images / "a.png", save_txt=True, classes=(1,)) / "labels/a.txt", ndmin=2)
    assert set(rows[:, 0]) == {1}
    with pytest.raises(InputError, match="--classes 2: no such class; the model has 2 classes, 0 to 1: "):
        find(images / "a.png", classes=(2,))


def test_labels_and_confidences_can_be_hidden(find, images: Path) -> None:
    drawn = [
        cv2.imread(str(find(images / "a.png", max_det=1, **how) / "a.png"))
        for how in ({}, {"hide_conf": True}, {"hide_labels": True})
    ]
    assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()


def test_lines_are_as_thick_as_asked_for(find, images: Path) -> None:
    plain = cv2.imread(str(images / "a.png"))
    changed = [
        (
            cv2.imread(str(find(images / "a.png", max_det=1, hide_labels=True, line_thickness=t) / "a.png")) != plain
        ).sum()
        for t in (1, 3, 6)
    ]
    assert 0 < changed[0] < changed[1] < changed[2]


def test_agnostic_suppression_leaves_fewer_boxes(find, images: Path) -> None:
    counts = [
        len(np.loadtxt(find(images / "a.png", save_txt=True, max_det=500, agnostic_nms=a) / "labels/a.txt", ndmin=2))
        for a in (False, True)
    ]
    assert counts[1] < counts[0]


def test_a_run_folder_is_numbered_unless_it_may_exist(find, images: Path) -> None:
    names = [find(images / "a.png", **how).name for how in ({}, {}, {"exist_ok": True, "name": "exp2"})]
    assert names == ["exp", "exp2", "exp2"]


def test_a_corrupt_image_is_named_and_the_others_are_done(find, images: Path, caplog) -> None:
    (images / "broken.jpg").write_bytes(b"not an image")
    with caplog.at_level("INFO"):
        folder = find(images)
    assert "broken.jpg" in caplog.text and "3 images" in caplog.text
    assert (folder / "a.png").exists()


def test_only_corrupt_images_are_an_error(find, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="none of its images and frames could be read"):
        find(tmp_path / "broken.jpg")


def other_model(path: Path, names: list[str]) -> str:
    """A checkpoint of another model, with random weights."""
    torch.manual_seed(7)
    model = Model("yolov5n.yaml", nc=len(names))
    save_checkpoint(
        path,
        Checkpoint(
            model_yaml=model.yaml, nc=model.nc, names=names, stride=model.stride.tolist(), model=model.state_dict()
        ),
    )
    return str(path)


@pytest.fixture
def candidates(best: Path, monkeypatch) -> Callable[[Callable[[], object]], int]:
    """How many boxes of one image reach the suppression while something runs."""

    def count(run: Callable[[], object]) -> int:
        seen: list[int] = []
        for place in ("utils.evaluation.evaluator", "utils.core.nms"):
            monkeypatch.setattr(
                f"{place}.non_max_suppression",
                lambda decoded, *args, **kinds: seen.append(decoded.shape[1]) or non_max_suppression(
                    decoded, *args, **kinds
                ),
            )  # fmt: skip
        run()
        return seen[-1]

    return count


# An image of 64 px has 3 anchors in 8x8, 4x4 and 2x2 cells. Of three views, all 64 px on paper, the first leaves out
# its 2x2 cells, the last its 8x8.
ONE_VIEW, THREE_VIEWS = 252, 252 - 12 + 252 + 252 - 192


def test_detect_looks_three_times_when_asked_to(find, images: Path, candidates) -> None:
    assert candidates(lambda: find(images / "a.png")) == ONE_VIEW
    assert candidates(lambda: find(images / "a.png", augment=True)) == THREE_VIEWS


def test_detect_asks_all_models_of_an_ensemble(find, images: Path, best: Path, tmp_path: Path, candidates) -> None:
    both = (str(best), other_model(tmp_path / "b.pt", load_checkpoint(best).names))
    assert candidates(lambda: find(images / "a.png", weights=both)) == 2 * ONE_VIEW
    assert candidates(lambda: find(images / "a.png", weights=both, augment=True)) == 2 * THREE_VIEWS


def test_val_scores_an_ensemble_in_three_views(score, best: Path, tmp_path: Path, candidates, caplog) -> None:
    both = (str(best), other_model(tmp_path / "b.pt", load_checkpoint(best).names))
    alone = candidates(lambda: score())
    three = candidates(lambda: score(augment=True))
    assert three > 2 * alone
    with caplog.at_level("INFO"):
        assert candidates(lambda: score(weights=both, augment=True)) == 2 * three
    assert f"weights: {best}, dynamic layers at T=" in caplog.text and f"weights: {both[1]}" in caplog.text


def test_models_of_different_classes_cannot_be_put_together(score, find, images, best, tmp_path: Path) -> None:
    three = other_model(tmp_path / "three.pt", ["a", "b", "c"])
    with pytest.raises(InputError, match=r"three\.pt has 3 classes, .*best\.pt 2"):
        score(weights=(str(best), three))
    other = other_model(tmp_path / "other.pt", ["a", "b"])
    with pytest.raises(InputError, match=r"class 0 is 'a' in .*other\.pt"):
        find(images, weights=(str(best), other))


def test_what_the_layers_see_lies_in_a_folder_per_image(find, images: Path) -> None:
    shutil.copy(images / "a.png", images / "a.bmp.png")
    shutil.copy(images / "a.png", images / "a.webp")  # what counts is the content
    folder = find(images, visualize=True, nosave=True)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_dir()} == {
        "a", "a2", "a.bmp", "b [1]", "deep", "deep/er", "deep/er/图片",
    }  # fmt: skip
    names = sorted(p.name for p in (folder / "a").iterdir())
    assert len(names) == 2 * 24
    assert "stage10_Dynamic_conv2d_features.png" in names
    assert np.load(folder / "a/stage0_Conv_features.npy").shape == (16, 32, 32)
    assert {len(list(d.glob("*.npy"))) for d in (folder / "a2", folder / "deep/er/图片")} == {24}


def test_looking_at_the_layers_changes_no_detection(find, images: Path) -> None:
    rows = [
        np.loadtxt(find(images / "a.png", save_txt=True, augment=True, **how) / "labels/a.txt", ndmin=2)
        for how in ({}, {"visualize": True})
    ]
    np.testing.assert_array_equal(*rows)


def test_val_and_detect_take_the_size_of_training(
    score: Any, find: Any, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = score(imgsz=None)
    assert json.loads((folder / "metrics.json").read_text())["settings"]["imgsz"] == 64
    find(images, imgsz=())
    assert caplog.text.count("image size 64, that of the model file; --imgsz sets another") == 2


def test_a_second_validation_in_a_folder_leaves_no_figure_of_the_first(score, shapes) -> None:
    folder = score(**shapes, exist_ok=True, save_txt=True, save_json=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "worst.jpg").touch()
    (folder / "val_batch2_pred.jpg").touch()
    first = {path.name for path in folder.iterdir()}
    score(**shapes, exist_ok=True, save_txt=True, conf_thres=1.0)
    assert first - {path.name for path in folder.iterdir()} >= {"val_batch2_pred.jpg", "annotations.json"}
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "metrics.csv").is_file()
    assert {path.read_text() for path in (folder / "labels").iterdir()} == {""}


def test_labels_of_the_set_are_never_written_over_by_val(score, shapes, tmp_path: Path) -> None:
    labels = Path(shapes["data"]).parent / "labels/val"
    before = {path: path.read_bytes() for path in labels.iterdir()}
    (tmp_path / "val/exp").mkdir(parents=True)
    (tmp_path / "val/exp/labels").symlink_to(labels)
    with pytest.raises(InputError, match="a link leads to"):
        score(**shapes, exist_ok=True, save_txt=True)
    assert {path: path.read_bytes() for path in labels.iterdir()} == before
