"""Every model yaml of the repository: the structure of the reference, and what any model must be able to do."""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from models.dynamic_convolution import DynamicConvolution
from models.fuse import fuse
from models.yolo import MODELS_DIR, Model, parse_model
from utils.config.hyp import Hyp
from utils.loss import DetectionLoss, scale_gains
from utils.training.optim import build_optimizer

REFERENCE = [
    *[f"yolov5{s}" for s in "nsmlx"],
    *[f"yolov5{s}6" for s in "nsmlx"],
    *["yolov3", "yolov3-spp", "yolov3-tiny"],
    *[f"yolov5-{kind}" for kind in ("bifpn", "fpn", "panet", "p2", "p34", "p6", "p7")],
    *["yolov5s-ghost", "yolov5s-transformer"],
]
YAMLS = {
    path.relative_to(MODELS_DIR).as_posix(): path
    for path in sorted(MODELS_DIR.rglob("*.yaml"))
    if "backbone" in yaml.safe_load(path.read_text())
}


def _kinds() -> list[str]:
    """One yaml per set of rows: n, s, m, l, x differ in their multiples only, which :func:`small` evens out."""
    seen: dict[str, str] = {}
    for name, path in YAMLS.items():
        content = yaml.safe_load(path.read_text())
        seen.setdefault(json.dumps([content["backbone"], content["head"]]), name)
    return list(seen.values())


KINDS = _kinds()


def small(name: str, nc: int = 3) -> Model:
    """The model of a yaml with few channels and repeats: the same layers and links in a size a test can run."""
    content = yaml.safe_load(YAMLS[name].read_text())
    content["width_multiple"] = min(content["width_multiple"], 0.125)
    content["depth_multiple"] = min(content["depth_multiple"], 0.34)
    content["yaml_file"] = name
    torch.manual_seed(0)
    return Model(content, nc=nc)


def with_statistics(model: Model) -> Model:
    """Norm statistics and attentions as after training, so that a wrong fold or a lost buffer shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            if isinstance(module, DynamicConvolution):
                module.routing.set_temperature(1)
    return model.eval()


@pytest.mark.parametrize("name", REFERENCE)
def test_structure_of_every_model_of_the_reference(golden: Any, name: str) -> None:
    reference = golden.json("models")["models"][name]
    content = yaml.safe_load((MODELS_DIR / reference["file"].removeprefix("models/")).read_text())
    with torch.device("meta"):
        layers, save = parse_model(content, 3, name)
    own = [[f"model.{k}", list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in layers.state_dict().items()]
    keys = golden.folder / f"state_dict/{name}.json.gz"
    if keys.exists():  # the reference lists the keys of one model per kind, and their number for all
        assert own == json.loads(gzip.decompress(keys.read_bytes()))
    assert len(own) == reference["state_dict_entries"]
    assert save == reference["save"]
    assert [layer.np for layer in layers] == [row[3] for row in reference["table"]]
    assert sum(p.numel() for p in layers.parameters()) == reference["parameters"]
    assert len(list(layers.modules())) + 1 == reference["layers"]


@pytest.mark.parametrize("name", REFERENCE)
def test_strides_and_anchors_of_every_model_of_the_reference(golden: Any, name: str) -> None:
    reference = golden.json("models")["models"][name]
    model = small(reference["file"].removeprefix("models/"))
    assert model.stride.tolist() == reference["stride"]
    assert model.head.anchors_px.flatten(1).tolist() == reference["anchors_pixels"]


def test_the_rows_are_those_of_the_reference(golden: Any) -> None:
    for name, rows in golden.json("model_configs_v6.1").items():
        assert yaml.safe_load((MODELS_DIR / name).read_text()) == rows, name


@pytest.mark.parametrize("name", KINDS)
def test_one_step_at_batch_one_gives_every_parameter_a_finite_gradient(name: str) -> None:
    model = small(name).train()
    head = model.head
    with torch.no_grad():
        head.anchors.clamp_(min=0.5)  # some yamls leave their sizes to be fitted
    hyp = Hyp()
    loss = DetectionLoss(head.anchors, head.stride, head.nc, scale_gains(hyp, head.nl, head.nc, 256))
    targets = torch.tensor([[0, i % 3, 0.3 + 0.1 * i, 0.5, 0.1 * (i + 1), 0.15 * (i + 1)] for i in range(5)])
    loss(model(torch.rand(1, 3, 256, 256)), targets).total.backward()
    # ReLU units of an attention may be dead for one image, so a gradient may be zero, but not absent
    wrong = [k for k, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert wrong == []


@pytest.mark.parametrize("name", KINDS)
def test_parameter_groups_hold_every_parameter_once(name: str) -> None:
    model = small(name)
    optimizer = build_optimizer(model, "SGD", Hyp(momentum=0.9))
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_fused_equals_unfused(name: str) -> None:
    model = with_statistics(small(name))
    image = torch.rand(2, 3, 128, 256)
    with torch.no_grad():
        expected, _ = model(image)
        got, _ = fuse(copy.deepcopy(model))(image)
    torch.testing.assert_close(got[..., 4:], expected[..., 4:], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[..., :4], expected[..., :4], rtol=1e-5, atol=1e-3)  # pixels


@pytest.mark.parametrize("name", KINDS)
def test_copies_and_pickles_compute_the_same(name: str) -> None:
    model = with_statistics(small(name))
    image = torch.rand(1, 3, 256, 256)
    model.train()(image)[0].sum().backward()
    model.eval()
    with torch.no_grad():
        expected, _ = model(image)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(image)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", KINDS)
def test_half_and_bfloat16_stay_near_float32(name: str, dtype: torch.dtype) -> None:
    model = with_statistics(small(name))
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        expected, _ = model(image)
        got, _ = model.to(dtype)(image.to(dtype))
    error = (got.float() - expected)[..., 4:].abs().max()
    assert torch.isfinite(got).all()
    assert error < (0.01 if dtype == torch.float16 else 0.08)


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated in torch and warns of every shape it reads
@pytest.mark.parametrize("name", KINDS)
def test_a_trace_computes_the_same(name: str) -> None:
    model = with_statistics(small(name))
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        traced = torch.jit.trace(model, image, check_trace=False)
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
        buffer.seek(0)
        other = torch.rand(1, 3, 128, 128)
        torch.testing.assert_close(torch.jit.load(buffer)(other)[0], model(other)[0], rtol=1e-5, atol=1e-4)


def test_every_shipped_name_is_unique() -> None:
    names = [Path(name).name for name in YAMLS]
    assert len(names) == len(set(names))


def test_input_channels_other_than_three() -> None:
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text()) | {"ch": 4}
    model = Model(content, nc=2).eval()
    assert model.model[0].conv.in_channels == 4
    assert model(torch.rand(1, 4, 64, 64))[0].shape == (1, 3 * (64 + 16 + 4), 7)


@pytest.mark.parametrize("key", ["act", "activation"])
def test_another_activation_by_one_key(key: str) -> None:
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text()) | {key: "nn.LeakyReLU(0.1)"}
    model = Model(content, nc=2)
    found = {type(module) for module in model.modules() if "activation" in type(module).__module__}
    assert found == {nn.LeakyReLU}
    assert model.model[0].act.negative_slope == 0.1
    assert Model(model.yaml).model[3].act.negative_slope == 0.1  # it travels with the checkpoint's yaml
