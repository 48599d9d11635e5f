"""Counted work: by hand, against torch's own counter for every model yaml, and against the figures of the reference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.common import C3, C3TR, Conv, Dynamic_conv2d, attention2d
from models.fuse import fuse
from models.parser import read_model_yaml, read_rows
from models.summary import count_gflops, log_layer_table, summarize, unused_layers
from models.yolo import MODELS_DIR, Model

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PUBLISHED = "thop 0.0.31 (current when v6.1 came out)"
CONVOLUTIONS = "conv2d multiply-adds only"
# Files without a backbone, such as the list of anchors, are no models.
YAMLS = [file for file in sorted(MODELS_DIR.rglob("*.yaml")) if "backbone" in yaml.safe_load(file.read_text("utf-8"))]
REFERENCE = json.loads((GOLDEN / "models.json").read_text(encoding="utf-8"))["models"]
OF_V61 = [file for file in YAMLS if file.stem in REFERENCE]


def macs(layer: nn.Module, imgsz: int, channels: int) -> int:
    return round(count_gflops(layer, imgsz, channels) * 1e9 / 2)


def torch_gflops(model: nn.Module, imgsz: int = 640, channels: int = 3) -> float:
    """By torch's dispatcher, which sees every product whatever layer it is in. Leaves ``model`` on the meta device.

    On a CPU the fused attention of evaluation mode hides its products; there is none for meta tensors.
    """
    model.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, channels, imgsz, imgsz, device="meta"))
    return counter.get_total_flops() / 1e9


class Attended(nn.Module):
    """The cells of a map, read as tokens, attend to one another."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.batch_first = bool(settings.get("batch_first"))
        self.attention = nn.MultiheadAttention(8, 2, **settings)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).movedim(1, 2) if self.batch_first else x.flatten(2).movedim(2, 0)
        return self.attention(tokens, tokens, tokens)[0]


class Cross(Attended):
    """The cells of a map attend to a quarter of them, of another width."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).movedim(2, 0)
        few = tokens[: len(tokens) // 4]
        return self.attention(tokens, few[..., :6], few[..., :4])[0]


# --- by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "channels", "by_hand"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 4, 10 * 10 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), 4, 4 * 4 * 6 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 4, 10 * 10 * 4 * 6 * 4),
        (nn.Linear(10, 7), 2, 2 * 10 * 10 * 7),
        (nn.Sequential(nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(3), nn.Upsample(scale_factor=2.0)), 4, 0),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Softmax(dim=1), nn.LeakyReLU(), nn.Identity()), 4, 0),
        (Conv(4, 6, 3), 4, 10 * 10 * 6 * 4 * 9),
    ],
)
def test_products_are_counted_and_nothing_else(layer: nn.Module, channels: int, by_hand: int) -> None:
    assert macs(layer, 10, channels) == by_hand


def test_a_subclass_of_a_convolution_counts_as_one() -> None:
    class Mine(nn.Conv2d):
        pass

    assert macs(Mine(4, 6, 1), 10, 4) == 10 * 10 * 6 * 4


@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_counts_projections_and_both_products(batch_first: bool) -> None:
    tokens, width = 5 * 5, 8
    by_hand = tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    assert macs(Attended(batch_first=batch_first), 5, width) == by_hand


def test_attention_to_other_tokens_of_other_width() -> None:
    layer = Cross(kdim=6, vdim=4)
    queries, keys, width = 36, 9, 8
    by_hand = queries * width * width + keys * 6 * width + keys * 4 * width  # projections in
    by_hand += 2 * queries * keys * width + queries * width * width
    assert macs(layer, 6, width) == by_hand
    assert torch_gflops(layer, 6, width) == pytest.approx(2 * by_hand / 1e9)


def test_a_layer_with_macs_of_its_own_is_counted_by_them_and_its_children_are_part_of_it() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

        def macs(self, x: Tensor, y: Tensor) -> int:
            return x.numel() + y.numel() + 7

    assert macs(Doubled(), 10, 4) == 2 * 4 * 100 + 7


def test_a_small_dynamic_layer_by_hand() -> None:
    mean, attention, mixing, bias, convolution = 8 * 144, 8 * 2 + 2 * 4, 4 * 16 * 8 * 9, 4 * 16, 165_888
    layer = Dynamic_conv2d(8, 16, 3, ratio=0.25, padding=1)
    assert macs(layer, 12, 8) == mean + attention + mixing + bias + convolution


def test_a_routing_outside_of_a_dynamic_layer_counts_its_two_projections() -> None:
    assert macs(nn.Sequential(attention2d(8, 0.5, 4, 1.0)), 6, 8) == 8 * 4 + 4 * 4


def test_multiply_adds_of_the_dynamic_l_model_by_hand() -> None:
    extra = 0
    for i, o, cells in ((1024, 512, 20 * 20), (512, 256, 40 * 40)):
        mean_and_attention = i * cells + i * i + 4 * i
        mixing = 4 * (i * o + o)
        extra += mean_and_attention + mixing  # the convolution itself costs what the static one did
    measured = macs(Model("yolov5_dynamic.yaml"), 640, 3) - macs(Model("yolov5l.yaml"), 640, 3)
    assert measured == extra == 5_170_176


def test_multiply_adds_of_the_transformer_block_by_hand() -> None:
    cells, c = 10 * 10, 16
    linear = 6 * cells * c * c  # positions, q, k, v and the two after the attention
    attention = 4 * cells * c * c + 2 * cells * cells * c
    without = macs(C3(32, 32, n=0), 10, 32)
    assert macs(C3TR(32, 32, n=1), 10, 32) - without == linear + attention


def test_the_image_has_as_many_channels_as_the_yaml_says() -> None:
    content = {**yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text("utf-8")), "ch": 1}
    first = 320 * 320 * 16 * 36
    assert macs(Model("yolov5n.yaml"), 640, 3) - round(count_gflops(Model(content)) * 1e9 / 2) == 2 * first


def test_counting_leaves_the_model_as_it_is() -> None:
    model = Model("yolov5n_dynamic.yaml", nc=2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summarize(model, 320)
    after = model.state_dict()
    assert model.training
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_summary_in_one_line() -> None:
    summary = summarize(Model("yolov5n.yaml"))
    assert str(summary) == "270 layers, 1,872,157 parameters, 1,872,157 trainable, 4.5 GFLOPs"


# --- every model yaml ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    file: Path
    gflops: float
    fused: float
    by_torch: float


@cache
def count(file: Path) -> Counted:
    """Only shapes matter, and drawing weights takes long."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_"):
            patch.setattr(nn.init, name, lambda tensor, *args, **kwargs: nn.init.zeros_(tensor))
        model = Model(file).to("meta")
    gflops, fused = count_gflops(model), count_gflops(fuse(model))
    return Counted(file, gflops, fused, torch_gflops(model))


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Counted:
    return count(request.param)


every_model = pytest.mark.parametrize("counted", YAMLS, indirect=True, ids=lambda file: file.stem)
models_of_v61 = pytest.mark.parametrize("counted", OF_V61, indirect=True, ids=lambda file: file.stem)


def figures(counted: Counted) -> dict[str, Any]:
    return REFERENCE[counted.file.stem]["gflops_640"]


def products_of_attention(counted: Counted) -> float:
    """GFLOPs of the C3TR in yolov5s-transformer that are no convolutions: 400 cells of 256 channels."""
    cells, c = 20 * 20, 256
    return 2 * (10 * cells * c * c + 2 * cells * cells * c) / 1e9 if counted.file.stem.endswith("transformer") else 0


@every_model
def test_agrees_with_the_counter_of_torch_within_one_percent(counted: Counted) -> None:
    assert counted.gflops == pytest.approx(counted.by_torch, rel=0.01)


@every_model
def test_is_the_same_before_and_after_fusing_but_for_the_biases_of_dynamic_layers(counted: Counted) -> None:
    """K biases of every output channel are mixed for an image; the widest model has some ten thousand channels."""
    assert counted.gflops <= counted.fused <= counted.gflops + 2 * 4 * 10_000 / 1e9
    if "dynamic" not in str(counted.file) and "odconv" not in counted.file.stem:
        assert counted.fused == counted.gflops


@models_of_v61
def test_is_within_one_percent_of_the_published_figure(counted: Counted) -> None:
    """v6.1 counts six linear layers of the transformer, not the four products in and out of the attention nor its two
    products of tokens: 2 % less for that model."""
    cells, c = 20 * 20, 256
    not_counted = 2 * (4 * cells * c * c + 2 * cells * cells * c) / 1e9 if products_of_attention(counted) else 0
    assert counted.gflops - not_counted == pytest.approx(figures(counted)[PUBLISHED][1], rel=0.01)


@models_of_v61
def test_convolutions_are_those_of_the_reference(counted: Counted) -> None:
    assert counted.gflops - products_of_attention(counted) == pytest.approx(
        figures(counted)[CONVOLUTIONS][1], rel=0.001
    )


# --- layers that change nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: file.name)
def test_every_layer_of_our_models_is_used(file: Path) -> None:
    content, source = read_model_yaml(file)
    assert unused_layers([row.sources for row in read_rows(content, source)]) == []


def test_a_row_put_in_without_moving_the_numbers_behind_it_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text("utf-8"))
    content["backbone"].insert(
        9, [-1, 1, "nn.Identity", []]
    )  # the head still takes 17, 20 and 23 instead of 18, 21, 24
    log_layer_table(Model(content))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("layer 24 (C3) changes nothing: no later layer takes its output")
