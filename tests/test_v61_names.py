"""Every name that scripts import from v6.1 is importable here, from the same module."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import utils
from utils.callbacks import Callbacks

# Layers of TensorFlow, which v6.1 needs for its exports; here these go through torch's graph.
ELSEWHERE = {"models.tf"}


def test_every_name_of_v61_can_be_imported(golden: Any) -> None:
    missing = []
    for module, names in golden.json("import_names_v6.1").items():
        if module in ELSEWHERE:
            continue
        found = importlib.import_module(module.removesuffix(".__init__"))
        missing += [f"{module}.{name}" for name in names if not hasattr(found, name)]
    assert missing == []


@pytest.mark.parametrize("module", ["utils", "utils.datasets", "utils.general", "utils.metrics", "utils.plots"])
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
