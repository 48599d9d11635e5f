"""The options of the scripts against the table of v6.1, in both directions, and their value checks."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

import pytest

from utils.config.cli import parse
from utils.config.options import DetectOptions, ExportOptions, TrainOptions, ValOptions, to_plain
from utils.config.paths import ROOT
from utils.core.errors import InputError

CLASSES = {"train": TrainOptions, "val": ValOptions, "detect": DetectOptions, "export": ExportOptions}

# script -> flag -> our default, where it differs from v6.1.
CHANGED_DEFAULTS: dict[str, dict[str, Any]] = {
    "train": {"--weights": "", "--data": str(ROOT / "data/digits.yaml"), "--imgsz": None},
    "val": {"--weights": (), "--data": "", "--imgsz": None},
    "detect": {"--weights": (), "--data": "", "--imgsz": ()},
    "export": {"--weights": (), "--data": "", "--imgsz": ()},
}
# Options of v6.1 that are not there yet.
LATER = {
    "train": set(),
    "val": set(),
    "detect": set(),
    "export": set(),
}
# Options that v6.1 does not have.
DOWNLOAD = {"--download", "--allow-scripts", "--download-limit"}
WATCHED = {"--amp", "--deterministic", "--skip-nonfinite", "--save-steps", "--compile"}
TILES = {"--slice", "--overlap", "--slice-only"}
SCORING = {"--v61-matching", "--annotations", "--study-sizes"}
ADDED = {
    "train": {
        "--seed",
        "--modules",
        "--cache-dir",
        "--tensorboard",
        "--evolve-sampler",
        "--wandb",
        "--mlflow",
        "--mosaic-from",
    }
    | DOWNLOAD
    | WATCHED,
    "val": {"--modules", "--trust", "--cache-dir", "--rect", "--seed"} | DOWNLOAD | SCORING,
    "detect": {"--modules", "--trust", "--save-csv", "--save-json", "--vid-stride", "--batch-size", "--reconnect"}
    | {"--download"}
    | TILES,
    "export": {"--modules", "--cache-dir", "--output", "--dynamic-axes", "--dynamic-form", "--venvs", "--download"},
}


def ours(script: str) -> dict[str, dataclasses.Field[Any]]:
    return {item.metadata["flag"].names[0]: item for item in dataclasses.fields(CLASSES[script])}


def default_of_v61(entry: dict[str, Any]) -> Any:
    text = entry.get("default", "False" if entry.get("action") == "'store_true'" else "None")
    # The table holds the defaults as source text.
    if text.startswith("ROOT / "):
        return str(ROOT / ast.literal_eval(text.removeprefix("ROOT / ")))
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("script", CLASSES)
def test_every_option_of_v61_exists_or_is_listed_as_later(golden: Any, script: str) -> None:
    theirs = {entry["flags"][0] for entry in golden.json("cli_v6.1")[script]}
    assert theirs - set(ours(script)) == LATER[script]


@pytest.mark.parametrize("script", CLASSES)
def test_no_option_exists_beyond_v61_and_the_table_of_added_ones(golden: Any, script: str) -> None:
    theirs = {entry["flags"][0] for entry in golden.json("cli_v6.1")[script]}
    assert set(ours(script)) - theirs == ADDED[script]


@pytest.mark.parametrize("script", CLASSES)
def test_defaults_are_those_of_v61_but_for_the_table_of_changes(golden: Any, script: str) -> None:
    mine = ours(script)
    changed = {}
    for entry in golden.json("cli_v6.1")[script]:
        flag = entry["flags"][0]
        if flag in mine:
            expected, found = default_of_v61(entry), mine[flag].default
            if str(found) != str(expected):
                changed[flag] = found
    assert changed == CHANGED_DEFAULTS[script]


@pytest.mark.parametrize("script", CLASSES)
def test_spellings_and_switches_are_those_of_v61(golden: Any, script: str) -> None:
    mine = ours(script)
    for entry in golden.json("cli_v6.1")[script]:
        item = mine.get(entry["flags"][0])
        if item is not None:
            assert list(item.metadata["flag"].names)[: len(entry["flags"])] == entry["flags"]
            assert (item.metadata["flag"].convert is None) == (entry.get("action") == "'store_true'")


@pytest.mark.parametrize("script", CLASSES)
def test_every_option_has_a_help_text(script: str) -> None:
    assert all(len(item.metadata["flag"].help) > 8 for item in ours(script).values())


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainOptions().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options_class", "values", "message"),
    [
        (TrainOptions, {"epochs": -1}, "--epochs -1"),
        (TrainOptions, {"batch_size": 0}, "--batch-size 0"),
        (TrainOptions, {"batch_size": -2}, "--batch-size -2"),
        (TrainOptions, {"compile": True, "rect": True}, "--compile and --rect"),
        (TrainOptions, {"compile": True, "multi_scale": True}, "--compile and --multi-scale"),
        (TrainOptions, {"imgsz": 31}, "--imgsz 31"),
        (TrainOptions, {"label_smoothing": 1.5}, "--label-smoothing 1.5"),
        (TrainOptions, {"optimizer": "sgd"}, "SGD, Adam, AdamW"),
        (TrainOptions, {"freeze": (3, -1)}, "--freeze -1"),
        (TrainOptions, {"name": ""}, "--name"),
        (TrainOptions, {"quad": True, "batch_size": 2}, "--quad .*--batch-size 2"),
        (TrainOptions, {"rect": True, "image_weights": True}, "--rect and --image-weights"),
        (TrainOptions, {"save_steps": -1}, "--save-steps -1"),
        (TrainOptions, {"skip_nonfinite": -1}, "--skip-nonfinite -1"),
        (TrainOptions, {"nosave": True, "save_steps": 5}, "--nosave and --save-steps"),
        (TrainOptions, {"evolve": 0}, "--evolve 0"),
        (TrainOptions, {"evolve": 2, "epochs": 0}, "--evolve with --epochs 0"),
        (TrainOptions, {"evolve": 2, "save_period": 1}, "--evolve saves no checkpoints"),
        (TrainOptions, {"mosaic_from": "near"}, "--mosaic-from near is unknown"),
        (TrainOptions, {"evolve_sampler": "tpe"}, "--evolve-sampler tpe does nothing without --evolve"),
        (TrainOptions, {"evolve": 2, "evolve_sampler": "tree"}, "genetic, tpe"),
        (TrainOptions, {"evolve": 2, "bucket": "gs://b"}, "--bucket gs://b: nothing is exchanged"),
        (TrainOptions, {"entity": "team"}, "--entity: does nothing without --wandb"),
        (TrainOptions, {"upload_dataset": True, "bbox_interval": 3}, "--upload_dataset, --bbox_interval: .*--wandb"),
        (TrainOptions, {"wandb": True, "upload_dataset": "train"}, "--upload_dataset train is unknown"),
        (TrainOptions, {"wandb": True, "bbox_interval": -2}, "--bbox_interval -2"),
        (TrainOptions, {"wandb": True, "artifact_alias": "v3"}, "--artifact_alias v3 .* nothing is fetched"),
        (TrainOptions, {"nosave": True, "save_period": 5}, "--nosave and --save-period"),
        (ValOptions, {"conf_thres": 1.01}, "--conf-thres 1.01"),
        (ValOptions, {"iou_thres": -0.1}, "--iou-thres -0.1"),
        (ValOptions, {"task": "fast"}, "train, val, test, speed, study"),
        (ValOptions, {"study_sizes": (64, 16), "task": "study"}, "--study-sizes 16"),
        (ValOptions, {"study_sizes": (64,)}, "--study-sizes does nothing without --task study"),
        (ValOptions, {"annotations": "a.json"}, "--annotations does nothing without --save-json"),
        (
            ValOptions,
            {"annotations": "a.json", "save_json": True, "single_cls": True},
            "--annotations and --single-cls",
        ),
        (TrainOptions, {"allow_scripts": True}, "--allow-scripts does nothing without --download"),
        (ValOptions, {"allow_scripts": True}, "--allow-scripts does nothing without --download"),
        (ValOptions, {"download_limit": 0}, "--download-limit 0"),
        (DetectOptions, {"imgsz": (640, 16)}, "--imgsz 16"),
        (DetectOptions, {"imgsz": (64, 64, 64)}, "3 given"),
        (DetectOptions, {"classes": (-2,)}, "--classes -2"),
        (DetectOptions, {"max_det": 0}, "--max-det 0"),
        (ExportOptions, {"include": ("onxx",)}, "--include onxx: no such format; did you mean 'onnx'"),
        (ExportOptions, {"include": ()}, "--include names no format"),
        (ExportOptions, {"imgsz": (64, 64, 64)}, "3 given"),
        (ExportOptions, {"opset": 9}, "--opset 9"),
        (ExportOptions, {"half": True, "int8": True}, "--half and --int8"),
        (ExportOptions, {"train": True, "nms": True, "include": ("onnx",)}, "--train .* drop --nms"),
        (ExportOptions, {"nms": True, "include": ("onnx", "torchscript")}, "--nms .* not for --include torchscript"),
        (ExportOptions, {"int8": True, "include": ("onnx",)}, "--int8 .* --data"),
        (
            ExportOptions,
            {"int8": True, "data": "a.yaml"},
            "--int8 is there for onnx, openvino.*, not for .* torchscript",
        ),
        (ExportOptions, {"dynamic_axes": ("depth",)}, "--dynamic-axes depth"),
        (ExportOptions, {"dynamic_form": "A", "dynamic": True}, "--dynamic-form A .* one batch only"),
        (ExportOptions, {"dynamic_form": "A1", "batch_size": 2}, "--dynamic-form A1 .* --batch-size"),
        (DetectOptions, {"visualize": True, "weights": ("a.pt", "b.pt")}, "--visualize .*; --weights names 2"),
    ],
)
def test_an_impossible_value_names_the_flag_and_the_value(options_class: Any, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        options_class(**values)


def test_no_epochs_at_all_is_allowed() -> None:
    assert TrainOptions(epochs=0).epochs == 0


def test_plain_values_hold_no_tuples() -> None:
    plain = to_plain(DetectOptions(classes=(1, 2), imgsz=(320,)))
    assert plain["classes"] == [1, 2]
    assert plain["imgsz"] == [320]


def test_a_record_knows_what_was_named_even_if_it_is_the_default() -> None:
    assert TrainOptions(epochs=300).given == {"epochs"}
    assert parse(TrainOptions, ["--epochs", "300", "--no-amp"]).given == {"epochs", "amp"}
    assert parse(TrainOptions, []).given == set()


@pytest.mark.parametrize(("argv", "amp"), [([], None), (["--amp"], True), (["--no-amp"], False)])
def test_amp_is_a_yes_a_no_or_left_to_the_device(argv: list[str], amp: bool | None) -> None:
    assert parse(TrainOptions, argv).amp is amp


@pytest.mark.parametrize(("argv", "trials"), [([], None), (["--evolve"], 300), (["--evolve", "5"], 5)])
def test_evolve_alone_means_300_trials(argv: list[str], trials: int | None) -> None:
    assert parse(TrainOptions, argv).evolve == trials


def test_layers_to_freeze_are_numbers_ranges_and_names() -> None:
    assert parse(TrainOptions, ["--freeze", "10", "0-9", "model.24"]).freeze == (10, "0-9", "model.24")
