"""Names that scripts written for YOLOv5 import: those that the documentation lists are there, and do their work."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detect
import export
import train
import utils.datasets
import utils.general
import utils.loggers
import utils.torch_utils
import val
from utils.callbacks import Callbacks
from utils.config.cli import parse
from utils.config.keywords import as_options
from utils.config.options import DetectOptions, ExportOptions, TrainOptions, ValOptions
from utils.core.errors import InputError
from utils.core.v61 import ALIASES, NOT_SERVED, SERVED, served_names

ROOT = Path(__file__).resolve().parents[1]

PAGES = ("docs/en/from-v61.md", "docs/zh/from-v61.md")


def names_of(page: str) -> dict[str, list[str]]:
    """Module -> names, from the table of a page; a module that has those of another says so."""
    text = (ROOT / page).read_text(encoding="utf-8")
    table = text.partition("<!-- table: names -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", table, re.MULTILINE)
    found = {module: re.findall(r"`([\w.]+)`", names) for module, names in rows}
    return {module: found.get(names[0], names) for module, names in found.items()}


CLAIMED = [(module, name) for module, names in names_of(PAGES[0]).items() for name in names]


def test_both_languages_list_the_names_that_are_served() -> None:
    ours = {module: served_names(module) for module in [*SERVED, *ALIASES]}
    assert names_of(PAGES[0]) == names_of(PAGES[1]) == ours
    assert len(CLAIMED) > 320


@pytest.mark.parametrize("module", dict(CLAIMED))
def test_the_names_that_the_documentation_lists_can_be_imported(module: str, log_handlers_restored: None) -> None:
    names = [name for where, name in CLAIMED if where == module]
    exec(f"from {module} import {', '.join(names)}", {})  # as a script does it


@pytest.mark.parametrize(
    "module",
    ["models.common", "models.experimental", "utils.dataloaders", "utils.datasets", "utils.general", "utils.metrics",
     "utils.plots"],
)  # fmt: skip
def test_a_star_brings_all_names_of_a_module(module: str, log_handlers_restored: None) -> None:
    scope: dict[str, Any] = {}
    exec(f"from {module} import *", scope)
    assert [name for where, name in CLAIMED if where == module and name not in scope] == []


REPLACED = {
    (module, name): instead
    for module, entries in NOT_SERVED.items()
    for names, instead in entries.items()
    for name in names.split()
}


def test_every_name_of_v61_but_the_tensorflow_layers_is_served_or_has_a_replacement(golden: Any) -> None:
    listed = {(module, name) for module, names in names_of(PAGES[0]).items() for name in names}
    original = {
        (module.removesuffix(".__init__"), name)
        for module, names in golden.json("import_names_v6.1").items()
        for name in names
        if module != "models.tf"
    }
    assert original - listed == REPLACED.keys()


@pytest.mark.parametrize(("module", "name"), REPLACED)
def test_importing_a_name_that_is_not_served_is_an_error_that_names_the_replacement(module: str, name: str) -> None:
    expected = f"{module}.{name} of YOLOv5 is not served here; use {REPLACED[module, name]}"
    with pytest.raises(ImportError, match=f"^{re.escape(expected)}$"):
        exec(f"from {module} import {name}", {})


@pytest.mark.parametrize("module", sorted({*SERVED, *ALIASES}))
def test_a_name_that_is_nowhere_is_an_import_error(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nonsense'"):
        _ = importlib.import_module(module).nonsense


def test_the_first_cell_of_the_notebooks_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    display = utils.notebook_init()
    assert display is None or hasattr(display, "Image")
    assert "CPUs" in caplog.text and "of the disk" in caplog.text


def test_functions_are_registered_by_the_names_of_events_and_called_in_order() -> None:
    callbacks, heard = Callbacks(), []
    callbacks.register_action("on_val_end", name="first", callback=lambda *given: heard.append(given))
    callbacks.register_action("on_val_end", callback=lambda *_: heard.append("second"))
    callbacks.run("on_val_end", 1, 2)
    callbacks.run("on_train_end")
    assert heard == [(1, 2), "second"]
    assert [action["name"] for action in callbacks.get_registered_actions("on_val_end")] == ["first", ""]
    assert list(callbacks.get_registered_actions()) == ["on_val_end"]
    with pytest.raises(TypeError, match="is not a function"):
        callbacks.register_action("on_val_end", callback="text")  # type: ignore[arg-type]


def test_v61s_arguments_of_the_loader_keep_their_order() -> None:
    from utils.datasets import LoadImagesAndLabels, create_dataloader

    assert list(inspect.signature(create_dataloader).parameters) == [
        "path",
        "imgsz",
        "batch_size",
        "stride",
        "single_cls",
        "hyp",
        "augment",
        "cache",
        "pad",
        "rect",
        "rank",
        "workers",
        "image_weights",
        "quad",
        "prefix",
        "shuffle",
    ]
    assert list(inspect.signature(LoadImagesAndLabels).parameters) == [
        "path",
        "img_size",
        "batch_size",
        "augment",
        "hyp",
        "rect",
        "image_weights",
        "cache_images",
        "single_cls",
        "stride",
        "pad",
        "prefix",
    ]


@pytest.mark.parametrize(
    ("script", "options_class", "words", "change"),
    [
        (train, TrainOptions, ["--epochs", "7", "--img", "64", "--freeze", "3"], {"batch_size": 2}),
        (val, ValOptions, ["--task", "test", "--half"], {"imgsz": 64}),
        (detect, DetectOptions, ["--imgsz", "64", "96", "--classes", "0", "2"], {"conf_thres": 0.5}),
        (export, ExportOptions, ["--include", "onnx", "--dynamic"], {"opset": 17}),
    ],
)
def test_parse_opt_gives_options_to_be_changed(
    script: Any,
    options_class: Any,
    words: list[str],
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    log_handlers_restored: None,
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", *words])
    opt = script.parse_opt()
    assert isinstance(opt, argparse.Namespace)
    vars(opt).update(change)
    flags = [text for key, value in change.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    assert as_options(options_class, opt) == parse(options_class, [*words, *flags])
    opt.nonsense = 1
    with pytest.raises(InputError, match="unknown option 'nonsense'"):
        script.main(opt)


def test_parse_opt_of_train_passes_over_options_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--epochs", "7", "--tracker", "sort"])
    assert train.parse_opt(known=True).epochs == 7
    with pytest.raises(SystemExit):
        train.parse_opt()


def test_process_batch_pairs_as_v61() -> None:
    found = torch.tensor([[0.0, 0, 10, 10, 0.9, 1], [0, 0, 10, 6, 0.8, 1]])
    correct = val.process_batch(found, torch.tensor([[1.0, 0, 0, 10, 8]]), torch.linspace(0.5, 0.95, 10))
    assert correct.sum(1).tolist() == [7, 0]  # IoU 0.8 and 0.75, and one label to take


def test_single_images_are_saved_as_labels_and_as_coco_results(tmp_path: Path) -> None:
    found = torch.tensor([[10.0, 20, 30, 60, 0.876543, 1]])
    val.save_one_txt(found, True, (100, 200), tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "1 0.1 0.4 0.1 0.4 0.876543\n"
    rows: list[dict[str, Any]] = []
    val.save_one_json(found, rows, Path("0042.jpg"), [7, 9])
    val.save_one_json(found, rows, Path("a_b.jpg"), [7, 9])
    assert rows[0] == {"image_id": 42, "category_id": 9, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.87654}
    assert rows[1]["image_id"] == "a_b"


def test_functions_of_export_make_files_or_say_why_not(
    eager_weights: Path, tmp_path: Path, log_handlers_restored: None
) -> None:
    model, im = export.attempt_load(eager_weights), torch.zeros(1, 3, 64, 64)
    made = export.export_torchscript(model, im, tmp_path / "my.pt", False)
    assert made == str(tmp_path / "my.torchscript")
    again = val.DetectMultiBackend(made)
    torch.testing.assert_close(again(im), model(im)[0], rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="--opset 3"):
        export.export_onnx(model, im, tmp_path / "my.pt", opset=3)


def test_export_formats_is_a_table() -> None:
    pytest.importorskip("pandas")
    rows = {row.Argument: (row.Format, row.Suffix) for _, row in export.export_formats().iterrows()}
    assert rows["-"] == ("PyTorch", ".pt")
    assert rows["onnx"] == ("onnx", ".onnx")
    assert {"torchscript", "openvino", "saved_model", "edgetpu", "tfjs"} < rows.keys()


def test_loggers_of_a_training_loop_write_table_and_figures(tmp_path: Path) -> None:
    loggers, callbacks = utils.loggers.Loggers(tmp_path, opt=None, hyp={}), Callbacks()
    for name in utils.general.methods(loggers):
        callbacks.register_action(name, callback=getattr(loggers, name))
    callbacks.run("on_pretrain_routine_end")
    images = torch.zeros(1, 3, 32, 32)
    for number in (2, 3):
        callbacks.run("on_train_batch_end", number, None, images, torch.zeros(0, 6), ["a.jpg"], True, False)
    for epoch in range(2):
        callbacks.run("on_fit_epoch_end", list(np.arange(13) / 10 + epoch), epoch, 0.0, 0.0)
    callbacks.run("on_train_end", None, None, True, 1, None)
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,train/box_loss")
    assert rows[2].split(",")[1:3] == ["1", "1.1"]
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "results.png", "train_batch2.jpg"}


@pytest.mark.parametrize("name", ["LOGGER", "cv2"])
def test_asking_for_the_logger_gives_the_root_a_handler_and_importing_does_not(name: str) -> None:
    """A tracker removes the handler that it expects, and the lines of the logger still come, once."""
    code = (
        "import logging, utils.general\n"
        "assert not logging.getLogger().handlers\n"
        f"from utils.general import {name}\n"
        "logging.getLogger().removeHandler(logging.getLogger().handlers[0])\n"
        "from utils.general import cv2, LOGGER\n"
        "LOGGER.info('first')\n"
        "logging.getLogger().removeHandler(logging.getLogger().handlers[0])\n"
        "LOGGER.info('second')\n"
        "assert cv2.resize\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["first", "second"]), done.stderr


def test_yaml_files_of_scripts(tmp_path: Path) -> None:
    general = utils.general
    general.yaml_save(tmp_path / "a.yaml", {"path": tmp_path, "names": ["b", "a"], "猫": 1})
    assert general.yaml_load(tmp_path / "a.yaml") == {"path": str(tmp_path), "names": ["b", "a"], "猫": 1}


def test_boxes_are_scaled_under_the_later_names() -> None:
    boxes = torch.tensor([[16.0, 0, 48, 32]])
    assert utils.general.scale_boxes((32, 64), boxes, (64, 128)).tolist() == [[32, 0, 96, 64]]
    utils.general.clip_boxes(boxes, (50, 90))
    assert boxes.tolist() == [[32, 0, 90, 50]]


def test_later_names_for_models() -> None:
    layer = torch.nn.Conv2d(1, 1, 1)
    optimizer = utils.torch_utils.smart_optimizer(layer, "AdamW", 0.02, 0.9, 1e-4)
    groups = [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert sorted(groups) == [("bias", 0.02, 0.0), ("decay", 0.02, 1e-4), ("no_decay", 0.02, 0.0)]
    assert not utils.torch_utils.smart_inference_mode()(lambda: layer(torch.zeros(1, 1, 1, 1)))().requires_grad
