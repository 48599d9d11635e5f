"""Models from yaml: structure and outputs of the reference, and errors a person can act on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.common import Dynamic_conv2d
from models.fuse import fuse
from models.summary import summarize
from models.yolo import MODELS_DIR, Model
from utils.checkpoint import load_model
from utils.core.errors import InputError

SCALES = "nsmlx"
STATIC = [f"yolov5{s}.yaml" for s in SCALES]
DYNAMIC = ["yolov5_dynamic.yaml", *[f"yolov5{s}_dynamic.yaml" for s in SCALES]]


@pytest.mark.parametrize("scale", SCALES)
def test_structure_of_the_static_models_is_that_of_the_reference(golden, scale: str) -> None:
    reference = golden.json("models")["models"][f"yolov5{scale}"]
    model = Model(f"yolov5{scale}.yaml")
    keys = json.loads(gzip.decompress((golden.folder / f"state_dict/yolov5{scale}.json.gz").read_bytes()))
    own = [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in model.state_dict().items()]
    assert own == keys
    assert model.stride.tolist() == reference["stride"]
    assert model.save == reference["save"]
    assert [layer.np for layer in model.model] == [row[3] for row in reference["table"]]
    assert model.head.anchors_px.flatten(1).tolist() == reference["anchors_pixels"]
    summary = summarize(model)
    assert (summary.layers, summary.parameters) == (reference["layers"], reference["parameters"])
    fused = summarize(fuse(model))
    assert (fused.layers, fused.parameters) == (reference["fused"]["layers"], reference["fused"]["parameters"])


@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_models_have_dynamic_layers_at_10_and_14_only_and_the_static_rows_elsewhere(name: str) -> None:
    scale = name[6] if name[6] in SCALES else "l"
    dynamic = yaml.safe_load((MODELS_DIR / name).read_text())
    static = yaml.safe_load((MODELS_DIR / f"yolov5{scale}.yaml").read_text())
    assert dynamic["head"][0] == [-1, 1, "Dynamic_conv2d", [512, 1, 1]]
    assert dynamic["head"][4] == [-1, 1, "Dynamic_conv2d", [256, 1, 1]]
    dynamic["head"][0][2] = dynamic["head"][4][2] = "Conv"
    assert dynamic == static


def test_parameters_of_the_dynamic_l_model_by_hand() -> None:
    static, dynamic = Model("yolov5l.yaml"), Model("yolov5_dynamic.yaml")
    layers = [m for m in dynamic.model if isinstance(m, Dynamic_conv2d)]
    assert [(m.i, m.in_planes, m.out_planes, m.kernel_size, m.stride) for m in layers] == [
        (10, 1024, 512, 1, 1),
        (14, 512, 256, 1, 1),
    ]
    # per layer: 4 kernels and biases, attention in x in (ratio 1) and in x 4; instead of one kernel and its batch norm
    by_hand = sum(4 * (i * o + o) + i * i + 4 * i - (i * o + 2 * o) for i, o in ((1024, 512), (512, 256)))
    difference = sum(p.numel() for p in dynamic.parameters()) - sum(p.numel() for p in static.parameters())
    assert difference == by_hand == 3_284_480


@pytest.mark.parametrize("image", ["noise", "pic"])
@pytest.mark.parametrize("fused", [False, True])
def test_outputs_with_the_official_weights_are_those_of_the_reference(golden, shared_weights, image, fused) -> None:
    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    if fused:
        fuse(model)
    if image == "noise":
        x = torch.from_numpy(np.random.default_rng(0).random((1, 3, 160, 192), dtype=np.float32))
    else:
        x = torch.from_numpy(golden.array("model/pic_input_u8")).float() / 255
    with torch.no_grad():
        decoded, maps = model(x)
    reference = torch.from_numpy(golden.array(f"model/{image}_concat" + ("_fused" if fused else "")))
    torch.testing.assert_close(decoded[..., :4], reference[..., :4], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(decoded[..., 4:], reference[..., 4:], rtol=0, atol=1e-5)
    for level, own in enumerate(maps):
        torch.testing.assert_close(
            own, torch.from_numpy(golden.array(f"model/{image}_head{level}")), rtol=1e-4, atol=1e-4
        )


def test_layer_statistics_with_the_official_weights_are_those_of_the_reference(golden, shared_weights) -> None:
    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    rows: list[list[float]] = []
    for layer in list(model.model)[:24]:
        layer.register_forward_hook(
            lambda _, __, y: rows.append([float(v) for v in (y.mean(), y.std(), y.min(), y.max())])
        )
    with torch.no_grad():
        model(torch.from_numpy(golden.array("model/pic_input_u8")).float() / 255)
    np.testing.assert_allclose(rows, golden.array("model/pic_layer_stats"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["yolov5n.yaml", "yolov5n_dynamic.yaml"])
def test_fusing_changes_nothing_but_the_number_of_layers(name: str) -> None:
    torch.manual_seed(0)
    model = Model(name, nc=3)
    with torch.no_grad():
        for module in model.modules():  # statistics as after training
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    model.eval()
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before, _ = model(x)
        after, _ = fuse(model)(x)
    torch.testing.assert_close(after[..., 4:], before[..., 4:], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[..., :4], before[..., :4], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ["yolov5n.yaml", "yolov5n_dynamic.yaml"])
def test_every_parameter_gets_a_finite_gradient_and_batch_one_trains(name: str) -> None:
    model = Model(name, nc=3).train()
    maps = model(torch.rand(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 3, 8, 8, 8), (1, 3, 4, 4, 8), (1, 3, 2, 2, 8)]
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_building_leaves_the_batch_norm_statistics_alone() -> None:
    model = Model("yolov5n.yaml")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.running_mean == 0).all() and (module.running_var == 1).all()
            assert (module.eps, module.momentum) == (1e-3, 0.03)
    assert model.training


@pytest.mark.parametrize("nc", [1, 3, 80])
def test_biases_start_at_the_reference_values(golden, nc: int) -> None:
    head = Model("yolov5n.yaml", nc=nc).head
    torch.manual_seed(0)
    for conv in head.m:
        conv.bias.data.zero_()
    head.init_biases()
    rows = [r for r in golden.json("tensors")["detect_bias_init"] if r["nc"] == nc]
    for row, conv in zip(rows, head.m):
        bias = conv.bias.view(head.na, -1)
        assert bias[:, 4].tolist() == pytest.approx([row["obj_added"]] * 3, rel=1e-6)
        assert bias[:, 5:].flatten().tolist() == pytest.approx([row["cls_added"]] * (3 * nc), rel=1e-5)


def small(**changes: object) -> dict:
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text())
    return {**content, "yaml_file": "mine.yaml", **changes}


def with_row(section: str, number: int, row: list) -> dict:
    content = small()
    content[section][number] = row
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            with_row("backbone", 2, [-1, 3, "C33", [128]]),
            r"mine.yaml: backbone row 2 \(layer 2, C33\): unknown module 'C33'; did you mean 'C3'",
        ),
        (with_row("backbone", 1, [-1, 1, "Conv", []]), "backbone row 1 .*first argument must be the number of output"),
        (with_row("head", 2, [[-1, 40], 1, "Concat", [1]]), "head row 2 .*'from' 40 does not name an earlier layer"),
        (with_row("head", 1, [-1, 1, "nn.Upsample"]), r"head row 1: expected \[from, number, module, \[arguments\]\]"),
        (with_row("head", 14, [[17, 20], 1, "Detect", ["nc", "anchors"]]), "3 rows of anchors for 2 input layers"),
        (with_row("head", 0, [-1, 1, "Conv", [512, 1, 1, 0, 1, 1, 1, 1]]), "head row 0 .*cannot be built"),
        (small(nc=0), "nc must be a whole number of at least 1, got 0"),
        (small(widht_multiple=1), "unknown key 'widht_multiple'; did you mean 'width_multiple'"),
        ({k: v for k, v in small().items() if k != "head"}, "key 'head' is missing"),
        (
            {"scales": {}, **{k: v for k, v in small().items() if k != "anchors"}},
            "key 'anchors' is missing; it is of an anchor-free ultralytics model",
        ),
        ({**small(), "scales": {"n": [0.33, 0.25, 1024]}}, "unknown key 'scales'; give depth_multiple and width_"),
        (small(backbone=3), "mine.yaml: backbone must be a list of rows"),
        (small(head=[]), "mine.yaml: head must be a list of rows"),
        (small(ch="RGB"), "ch must be a whole number of at least 1, got 'RGB'"),
        (small(depth_multiple=0), "depth_multiple must be a number above 0, got 0"),
        (small(width_multiple="half"), "width_multiple must be a number above 0, got 'half'"),
        (small(anchors=None), "anchors must be their number per level, or one row of width,height pairs"),
        (small(anchors=[[10, 13, 16], [30, 61, 62], [1, 2, 3]]), "anchors must be their number per level"),
        (small(anchors=[[10, 13], [30, 61, 62, 45], [1, 2]]), "all of one length"),
        (with_row("backbone", 2, [-1, 0, "C3", [128]]), "backbone row 2: the number must be a whole number of at"),
        (with_row("backbone", 2, [-1, "x", "C3", [128]]), "backbone row 2: the number .* got 'x'"),
        (small(act="nn.LeakyRelu(0.1)"), "act: .* no activation of torch.nn; did you mean 'LeakyReLU'"),
        (small(act="__import__('os').abort()"), "act: .* is no activation of torch.nn"),
        (small(act="nn.LeakyReLU(slope=0.1)"), "act: .*unexpected keyword argument 'slope'"),
        (small(act="nn.LeakyReLU(0.1"), "act: .* cannot be read; write it like nn.LeakyReLU"),
    ],
)
def test_wrong_yaml_is_refused_with_file_row_and_cure(content: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Model(content)


def test_yaml_text_is_never_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    row = [-1, 1, "Conv", [f"__import__('pathlib').Path({str(marker)!r}).touch()"]]
    with pytest.raises(InputError):
        Model(with_row("backbone", 0, row))
    assert not marker.exists()


def test_missing_yaml_names_the_nearest_shipped_one() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"--cfg yolov5n_dynmic.yaml: no such .*did you mean 'yolov5n_dynamic.yaml'"
    ):
        Model("yolov5n_dynmic.yaml")


def test_the_number_of_classes_can_be_set_to_what_it_is_only() -> None:
    model = Model("yolov5n.yaml", nc=2)
    model.nc = 2
    with pytest.raises(ValueError, match="built for 2 classes, not 3"):
        model.nc = 3


def test_number_of_anchors_in_place_of_their_sizes_and_anchors_turned_round() -> None:
    assert Model(small(anchors=3)).head.anchors_px.shape == (3, 3, 2)
    usual = small()["anchors"]
    turned = Model(small(anchors=usual[::-1]))
    assert turned.head.anchors_px.flatten(1).tolist() == [[float(v) for v in row] for row in usual]
