"""Model yamls that cannot work are refused with file, row, layer and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from models.registry import LAYERS, LayerPlan, LayerRow, Scale, register
from models.yolo import MODELS_DIR, Model
from utils.core.errors import InputError

Row = list[Any]


@pytest.fixture(autouse=True)
def registry_restored() -> Iterator[None]:
    """Layers that a test registers are gone after it."""
    before = dict(LAYERS)
    yield
    LAYERS.clear()
    LAYERS.update(before)


def with_row(section: str, number: int, row: Row) -> dict[str, Any]:
    """The nano model with one row replaced; "mine.yaml" in messages."""
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text(encoding="utf-8"))
    content[section][number] = row
    return {**content, "yaml_file": "mine.yaml"}


def refusal(section: str, number: int, row: Row) -> str:
    """The error of a model with that row, after checking that it is one line that names file, row and layer."""
    message = refusal_of(with_row(section, number, row))
    index = number + (10 if section == "head" else 0)
    assert message.startswith(f"mine.yaml: {section} row {number} (layer {index}, {row[2]}): ")
    return message


def refusal_of(content: dict[str, Any]) -> str:
    """The error of a model, after checking that it is one line."""
    with pytest.raises(InputError) as caught:
        Model(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("C33", "C3"), ("conv", "Conv"), ("Dynamic_conv", "Dynamic_conv2d"), ("nn.Upsampel", "nn.Upsample")],
)
def test_a_misspelt_layer_name_is_answered_with_the_nearest(word: str, meant: str) -> None:
    assert f"unknown module '{word}'; did you mean '{meant}'?" in refusal("backbone", 4, [-1, 3, word, [256]])


@pytest.mark.parametrize(
    ("row", "problem", "cure"),
    [
        ([-1, 1, "Conv", []], "the first argument must be the number of output channels", "got []"),
        ([-1, 1, "Dynamic_conv2d", [64]], "missing 1 required positional", "it takes (in_planes, out_planes, kernel_"),
        ([-1, 1, "Conv", [64, 3, 2, None, 1, True, 7, 8]], "positional arguments but", "it takes (c1, c2, k, s"),
        ([-1, 1, "Conv", [64, "wide"]], "[32, 16, 'wide']", "it takes (c1, c2, k, s"),
        ([-1, 1, "Conv", [64, 3, 2, None, 5]], "divisible by groups", "it takes (c1, c2, k, s"),
        ([-1, 1, "Conv", [64, 3, {"strid": 2}]], "unexpected keyword argument 'strid'", "it takes (c1, c2, k, s"),
    ],
)  # fmt: skip
def test_too_few_or_wrong_arguments_are_answered_with_those_it_takes(row: Row, problem: str, cure: str) -> None:
    message = refusal("backbone", 3, row)
    assert problem in message and cure in message


@pytest.mark.parametrize("arguments", [[], ["nc"]])
def test_a_head_without_anchors_is_an_input_error(arguments: Row) -> None:
    assert f"cannot be read with arguments {[80][: len(arguments)]}" in refusal(
        "head", 14, [[17, 20, 23], 1, "Detect", arguments]
    )


@pytest.mark.parametrize("source", [3, 40, -4, "x"])
def test_a_source_beyond_the_layers_so_far_is_named(source: Any) -> None:
    message = refusal("backbone", 3, [source, 1, "Conv", [64]])
    assert f"'from' {source} does not name an earlier layer; there are 3 before this one" in message


@pytest.mark.parametrize("module", ["Conv", "Concat"])
def test_an_empty_list_of_sources_is_refused(module: str) -> None:
    assert "'from' is an empty list; name at least one layer" in refusal("backbone", 3, [[], 1, module, [64]])


def test_several_sources_for_a_layer_that_takes_one_are_refused() -> None:
    assert "takes one input, not a list of 2" in refusal("backbone", 3, [[-1, 0], 1, "Conv", [64]])


def test_maps_of_different_size_are_named_with_their_shapes_and_sources() -> None:
    message = refusal("head", 2, [[-1, 4], 1, "Concat", [1]])
    # At 256 px layer 11 is upsampled to stride 16, layer 4 has stride 8.
    assert "cannot be run on 128x16x16 and 64x32x32 (channels x height x width, from [-1, 4]) at 256 px" in message
    assert message.endswith("check its 'from' and arguments")


@pytest.mark.parametrize(("arguments", "word"), [(["nc", "anchor"], "anchors"), (["n", "anchors"], "nc")])
def test_a_misspelt_argument_of_the_head_is_told_and_not_counted_by_its_letters(arguments: Row, word: str) -> None:
    message = refusal("head", 14, [[17, 20, 23], 1, "Detect", arguments])
    assert f"the arguments are [nc, anchors]; '{arguments[word == 'anchors']}' is not {word}" in message


def test_a_model_that_does_not_end_in_detect_names_its_last_row() -> None:
    assert "the last row must be Detect, such as [[17," in refusal("head", 14, [-1, 1, "Conv", [64]])


def test_a_bare_dynamic_convolution_meant_with_a_stride_is_named_where_maps_do_not_meet() -> None:
    message = refusal_of(with_row("head", 8, [-1, 1, "Dynamic_conv2d", [256, 3, 2]]))
    assert message.startswith("mine.yaml: head row 9 (layer 19, Concat): cannot be run on 64x30x30 and 64x16x16")
    assert "layer 18, Dynamic_conv2d, has no padding, and its third argument is the ratio" in message
    assert message.endswith("DynamicConv takes [outputs, kernel, stride] and keeps the size at stride 1")


@pytest.mark.parametrize(("bare", "block"), [("ODConv2d", "ODConv"), ("CondConv2d", "CondConv")])
def test_the_other_bare_dynamic_convolutions_are_named_with_their_block(bare: str, block: str) -> None:
    message = refusal_of(with_row("backbone", 3, [-1, 1, bare, [256, 3, 2]]))
    assert message.startswith("mine.yaml: head row 6 (layer 16, Concat): cannot be run on 64x32x32 and 64x31x31")
    assert message.endswith(
        f"layer 3, {bare}, has no padding: {block} takes [outputs, kernel, stride] and keeps the size at stride 1"
    )
    Model(with_row("backbone", 3, [-1, 1, block, [256, 3, 2]]))
    Model(with_row("backbone", 3, [-1, 1, bare, [256, 3, 2, 1]]))


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        ([-1, 1, "Dynamic_conv2d", [1024, 1, 2]], "layer 8, Dynamic_conv2d, its third argument is the ratio"),
        ([-1, 1, "ODConv2d", [1024, 3]], "layer 8, ODConv2d, has no padding: ODConv takes"),
        ([-1, 1, "Dynamic_conv2d", [1024, 1, 1]], ""),
        ([-1, 1, "Dynamic_conv2d", [1024, 3, 0.25, 1, 1]], ""),
        ([-1, 1, "ODConv2d", [1024, 3, 1, 1]], ""),
    ],
)
def test_a_bare_dynamic_convolution_that_only_makes_maps_smaller_is_warned_of(
    row: Row, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = with_row("backbone", 8, row)
    rows["head"] = [[[4, 6, 9], 1, "Detect", ["nc", "anchors"]]]
    Model(rows)
    lines = [record.getMessage() for record in caplog.records if "Conv takes [" in record.getMessage()]
    assert [line.startswith(f"mine.yaml: {warned}") for line in lines] == [True] * bool(warned)


def test_the_arguments_of_another_odconv_are_not_taken_for_ours() -> None:
    message = refusal_of(with_row("backbone", 3, [-1, 1, "ODConv2d", [256, 3, 2, 1, 1, 1, 0.0625, 4]]))
    assert "bias must be True or False, got 0.0625; it takes (in_planes, out_planes, kernel_size, stride" in message
    # One with its own padding keeps the size, and is not to blame for another row's mistake.
    content = with_row("head", 4, [-1, 1, "Dynamic_conv2d", [256, 3, 1, 1, 1]])
    content["head"][2] = [[-1, 4], 1, "Concat", [1]]
    assert "Dynamic_conv2d" not in refusal_of(content)


def test_a_layer_with_a_part_of_a_name_that_the_model_sets_is_told_to_rename_it() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Identity()

    register("same")(Named)
    assert "calls a part of itself 'f', which the model sets" in refusal("backbone", 4, [-1, 1, "Named", []])


def test_a_convolution_of_torch_takes_its_channels_as_written() -> None:
    row = [-1, 1, "nn.ConvTranspose2d", [128, 128, 4, 2, 1]]
    model = Model(with_row("head", 1, row))
    assert isinstance(model.model[11], nn.ConvTranspose2d)
    message = refusal("head", 1, [-1, 1, "nn.ConvTranspose2d", [512, 512, 4, 2, 1]])
    assert "takes [128, channels out, kernel, ...], since 128 channels arrive" in message


@pytest.mark.parametrize(
    "row", [["nn.Dropout", [0.1]], ["nn.Identity", []], ["nn.Hardswish", []], ["nn.AvgPool2d", [3, 1, 1]]]
)
def test_layers_of_torch_that_keep_the_channels_can_stand_in_a_row(row: Row) -> None:
    model = Model(with_row("backbone", 9, [-1, 1, *row]))
    assert type(model.model[9]).__name__ == row[0].removeprefix("nn.")


def test_a_map_too_small_for_its_layer_is_named_with_its_shape() -> None:
    assert "cannot be run on 256x8x8" in refusal("backbone", 9, [-1, 1, "nn.MaxPool2d", [64]])


class Halves(nn.Module):
    """Gives half of the channels, whatever its rule says."""

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(2, dim=1)[0]


def test_a_layer_whose_rule_promises_other_channels_is_blamed_itself_and_not_the_one_behind_it() -> None:
    register("same")(Halves)
    message = refusal("backbone", 4, [-1, 1, "Halves", []])
    # Row 3 gives 256 * 0.25 channels at stride 8.
    assert "returned 32x32x32 (channels x height x width), its rule promised 64 channels" in message
    assert "register a layer from --modules with a rule that fits" in message


def halved(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
    return LayerPlan((), channels[0] // 2)


def test_a_rule_of_ones_own_can_promise_what_the_layer_gives() -> None:
    register(halved)(Halves)
    model = Model(with_row("backbone", 4, [-1, 1, "Halves", []]))
    assert model.model[5].conv.in_channels == 32


def test_an_error_in_a_rule_names_the_row() -> None:
    def broken(row: LayerRow, channels: Sequence[int], scale: Scale) -> LayerPlan:
        return LayerPlan((), channels[7])

    register(broken)(Halves)
    message = refusal("backbone", 4, [-1, 1, "Halves", [5]])
    assert "cannot be read with arguments [5]" in message and "index out of range" in message


def test_a_bug_in_a_layer_keeps_its_traceback() -> None:
    class Buggy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.no_such_layer(x)

    register("same")(Buggy)
    with pytest.raises(AttributeError, match="no_such_layer"):
        Model(with_row("backbone", 4, [-1, 1, "Buggy", []]))


def test_the_probe_leaves_nothing_on_the_layers() -> None:
    model = Model("yolov5n.yaml")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.train()(torch.zeros(1, 3, 64, 64))[0].shape == (1, 3, 8, 8, 85)


def test_a_yaml_file_is_named_without_its_folder(tmp_path: Path) -> None:
    content = with_row("backbone", 2, [-1, 3, "C33", [128]])
    del content["yaml_file"]
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"^odd.yaml: backbone row 2 \(layer 2, C33\)"):
        Model(tmp_path / "odd.yaml")


def levels_of(tmp_path: Path, levels: Sequence[int]) -> Path:
    """A file with the nano model whose Detect has these levels."""
    content = with_row("head", 14, [list(levels), 1, "Detect", ["nc", "anchors"]])
    content["anchors"] = content["anchors"][: len(levels)]
    del content["yaml_file"]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("levels", "problem"),
    [
        ([17, 21, 23], "layers 21 and 23 both have stride 32; is 20 meant?"),
        ([17, 19, 20], "layers 19 and 20 both have stride 16; is 23 meant?"),
        ([17, 20, 20], "layer 20 is named twice; each level needs its own layer"),
        ([-7, 17, 23], "layer 17 is named twice; each level needs its own layer"),
    ],
)
def test_two_levels_of_one_stride_are_refused_with_the_layer_that_may_be_meant(
    tmp_path: Path, levels: list[int], problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        Model(levels_of(tmp_path, levels))
    assert str(caught.value) == f"mine.yaml: head row 14 (layer 24, Detect): {problem}"


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([17, 23, 20], "strides 8, 32, 16 of layers 17, 23, 20 are not in order"),
        ([17, 23], "strides 8, 32 of layers 17, 23: each is expected to be twice the one before"),
    ],
)
def test_levels_with_unusual_strides_are_warned_of(
    tmp_path: Path, levels: list[int], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    Model(levels_of(tmp_path, levels))
    assert words in "".join(caplog.messages)


def test_a_trained_model_with_two_levels_of_one_stride_is_still_read(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(with_row("head", 14, [[17, 21, 23], 1, "Detect", ["nc", "anchors"]]))
    assert model.stride.tolist() == [8, 32, 32]
    assert "layers 21 and 23 both have stride 32" in "".join(caplog.messages)


@pytest.mark.parametrize("module", ["ODConv2d", "Dynamic_conv2d"])
def test_a_row_with_inputs_and_outputs_as_other_forks_write_it_is_named(module: str) -> None:
    with pytest.raises(
        InputError, match=rf"layer 3 \({module}\): .* memory; check its arguments: is the second the ker"
    ):
        Model(with_row("backbone", 3, [-1, 1, module, [256, 256, 3]]))
