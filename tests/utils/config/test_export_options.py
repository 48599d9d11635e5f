"""What export.py says of options that change nothing beside the others."""

from __future__ import annotations

from typing import Any

import pytest

from utils.config.options import ExportOptions


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"inplace": True}, "--inplace has no effect: the head never works in place"),
        ({"conf_thres": 0.5}, "--conf-thres has no effect without --nms"),
        ({"cache_dir": "c"}, "--cache-dir has no effect without --data"),
        ({"opset": 17, "include": ("pt2",)}, "--opset has no effect on --include pt2: it is for onnx"),
        ({"workspace": 8}, "--workspace has no effect on --include torchscript onnx: it is for engine"),
        (
            {"venvs": "v"},
            "--venvs has no effect on --include torchscript onnx: it is for tflite, saved_model, pb",
        ),
        (
            {"half": True, "include": ("static",)},
            "--half has no effect on --include static: it is for torchscript, onnx, openvino, engine, coreml, "
            "saved_model, pb, tflite, ncnn, executorch, pt2, aoti, yolov5",
        ),
    ],
)
def test_an_option_that_changes_nothing_is_told(given: dict[str, Any], line: str) -> None:
    assert ExportOptions(**given).idle() == [line]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"opset": 12, "include": ("pt2",)},  # the default, named
        {"simplify": True, "opset": 17},
        {"nms": True, "conf_thres": 0.5, "include": ("onnx",)},
        {"workspace": 8, "include": ("engine",)},
        {"optimize": True, "include": ("torchscript",)},
        {"half": True, "dynamic": True, "include": ("static", "pt2")},
    ],
)
def test_options_of_use_are_not_told(given: dict[str, Any]) -> None:
    assert ExportOptions(**given).idle() == []
