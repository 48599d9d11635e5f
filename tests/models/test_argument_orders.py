"""Rows of bare dynamic convolutions in the orders of other programs: built as meant, or explained in one line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from torch import nn

from models.argument_orders import by_name
from models.common import Dynamic_conv2d
from models.registry import LAYERS, Registered, scaled
from models.yolo import MODELS_DIR, Model
from utils.core.errors import InputError


def nano_with(module: str, args: list[Any]) -> dict[str, Any]:
    """yolov5n with a dynamic convolution in place of the one that leads to stride 8."""
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text(encoding="utf-8"))
    content["backbone"][3] = [-1, 1, module, args]
    return {**content, "yaml_file": "mine.yaml"}


# Outputs 256, kernel 3, stride 2 and what else it says, in the order of some program.
OTHERS: list[tuple[str, list[Any], str, dict[str, Any]]] = [
    (
        "Dynamic_conv2d", [256, 3, 2, 1, 1, 1, True, 4],
        "[outputs, kernel, stride, padding, dilation, groups, bias, K]", {"stride": 2, "padding": 1, "K": 4},
    ),
    (
        "Dynamic_conv2d", [256, 3, 2, 1, 1, 1, False, 8, 30],
        "[outputs, kernel, stride, padding, dilation, groups, bias, K, temperature]",
        {"stride": 2, "padding": 1, "bias": False, "K": 8, "temperature": 30},
    ),
    (
        "Dynamic_conv2d", [256, 3, 2, 0.25, 4, 34], "[outputs, kernel, stride, ratio, K, temperature]",
        {"stride": 2, "padding": 1, "ratio": 0.25, "K": 4, "temperature": 34},
    ),
    (
        "Dynamic_conv2d", [256, 3, 2, 1, 0.5, 2], "[outputs, kernel, stride, padding, ratio, K]",
        {"stride": 2, "padding": 1, "ratio": 0.5, "K": 2},
    ),
    (
        "Dynamic_conv2d", [256, 3, 2, 1, 1, 2, 0.5, 4],
        "[outputs, kernel, stride, padding, dilation, groups, ratio, K]",
        {"stride": 2, "padding": 1, "groups": 2, "ratio": 0.5, "K": 4},
    ),
    (
        "Dynamic_conv2d", [256, 3, 2, 1, 1, 1, 4, 34],
        "[outputs, kernel, stride, padding, dilation, groups, K, temperature]",
        {"stride": 2, "padding": 1, "K": 4, "temperature": 34},
    ),
    (
        "ODConv2d", [256, 3, 2, 1, 1, 1, 0.0625, 4], "[outputs, kernel, stride, padding, dilation, groups, ratio, K]",
        {"stride": 2, "padding": 1, "ratio": 0.0625, "K": 4},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("module", "args", "order", "meant"), OTHERS)
def test_an_order_that_cannot_be_built_is_recognised_and_written_by_name(
    module: str, args: list[Any], order: str, meant: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as caught:
        Model(nano_with(module, args))
    message = str(caught.value)
    assert message.startswith(f"mine.yaml: backbone row 3 (layer 3, {module}): cannot be built with arguments ")
    assert "; it takes (in_planes, out_planes, kernel_size, " in message and "\n" not in message
    text = ", ".join(f"{key}: {value}" for key, value in meant.items())
    assert message.endswith(f"; in the order {order} it would be [256, 3, {{{text}}}]")


@pytest.mark.parametrize(("module", "args", "order", "meant"), OTHERS)
def test_the_row_by_name_that_is_proposed_builds_the_layer_that_was_meant(
    module: str, args: list[Any], order: str, meant: dict[str, Any]
) -> None:
    proposed = yaml.safe_load(by_name(module, args).partition("it would be ")[2])
    assert proposed == [256, 3, meant]
    layer = Model(nano_with(module, proposed)).model[3]
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (3, 2, 1, 1)
    assert (layer.K, layer.groups) == (meant["K"], meant.get("groups", 1))
    assert float(layer.routing.temperature) == meant.get("temperature", 34)
    assert (layer.bias is not None) == meant.get("bias", True)
    if module == "Dynamic_conv2d":
        assert layer.attention.fc1.out_channels == 32 * meant.get("ratio", 0.25)


@pytest.mark.parametrize(
    ("args", "problem", "proposed"),
    [
        ([256, 3, 2], "has no padding, and its third argument is the ratio", ""),
        ([256, 3, 2, 1, 1], "its third argument is the ratio", "[256, 3, {stride: 2, padding: 1}]"),
        ([256, 3, 2, 4], "has no padding, and its third argument is", "[256, 3, {stride: 2, padding: 1, K: 4}]"),
        ([256, 3, 0.25, 4, 34], "has a padding of 34 around a kernel of 3", "{ratio: 0.25, padding: 1, K: 4, temp"),
        ([32, 64, 3, 2], "has no padding", "the second argument is the kernel, here 64 x 64; the channels that arrive"),
    ],
)
def test_an_order_that_can_be_built_but_means_something_else_is_told(
    args: list[Any], problem: str, proposed: str, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        Model(nano_with("Dynamic_conv2d", args))
        (text,) = [message for message in caplog.messages if "layer 3, Dynamic_conv2d" in message]
    except InputError as error:  # a later row shows it
        text = str(error)
    assert f"layer 3, Dynamic_conv2d, {problem}" in text and proposed in text and "\n" not in text
    assert "DynamicConv takes [outputs, kernel, stride] and keeps the size at stride 1" in text


@pytest.mark.parametrize("args", [[256, 3, 2, None], [256, 3, 2, None, 1], [256, 3, 2, "SiLU"], [256, 3, 2, True]])
def test_the_arguments_of_conv_are_answered_with_the_block_that_takes_them(args: list[Any]) -> None:
    with pytest.raises(InputError, match=r"stride must be a whole number.*; DynamicConv takes the arguments of Conv$"):
        Model(nano_with("Dynamic_conv2d", args))


@pytest.mark.parametrize(
    "args",
    [
        [256, 3, 0.25, 2, 1],
        [256, 3, 1, 2, 1, 1, 1, True, 4, 34],
        [256, 3, {"stride": 2, "padding": 1}],
        [256, 3, 0.25, 2, 1, {}],
        [256, 3, 0.25, {"stride": 2, "padding": 1, "K": 2}],
    ],
)
def test_our_own_order_is_taken_as_it_is(args: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    layer = Model(nano_with("Dynamic_conv2d", args)).model[3]
    assert isinstance(layer, Dynamic_conv2d) and (layer.stride, layer.padding) == (2, 1)
    assert not any("Dynamic_conv2d" in message for message in caplog.messages)


@pytest.mark.parametrize("args", [[256], [256, 3], [256, 3, 2, 1, 1, True], ["wide", 3, 2, 1], [256, 3, 2, [1], 1]])
def test_what_fits_no_order_is_not_explained(args: list[Any]) -> None:
    assert by_name("Dynamic_conv2d", args) == ""


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"kernel_size": 2.5}, "kernel_size must be a whole number of at least 1, got 2.5"),
        ({"stride": 0}, "stride must be a whole number of at least 1, got 0"),
        ({"padding": -1}, "padding must be a whole number of at least 0, got -1"),
        ({"dilation": True}, "dilation must be a whole number of at least 1, got True"),
        ({"groups": False}, "groups must be a whole number of at least 1, got False"),
        ({"K": "4"}, "K must be a whole number of at least 1, got '4'"),
    ],
)
def test_sizes_that_no_convolution_has_are_refused_by_name_and_value(option: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        Dynamic_conv2d(8, 8, **{"kernel_size": 3, **option})


def test_a_layer_that_divides_by_zero_is_answered_with_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Divided(nn.Module):
        def __init__(self, c1: int, c2: int, ratio: int) -> None:
            super().__init__()
            self.hidden = c2 // ratio

    monkeypatch.setitem(LAYERS, "Divided", Registered(Divided, scaled))
    with pytest.raises(InputError, match=r"mine.yaml: backbone row 3 \(layer 3, Divided\): .*division.* by zero"):
        Model(nano_with("Divided", [256, 0]))
