"""Tiny models in files: two levels, a few thousand weights, and objects everywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.common import Dynamic_conv2d
from models.dynamic import set_temperature
from models.dynamic_variants import ChannelGate
from models.yolo import Model
from utils.checkpoint import Checkpoint, save_checkpoint

ROWS: dict[str, list[Any]] = {
    "static": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 1, 1]]],
    "dynamic": [[-1, 1, "DynamicConv", [16, 3, 2]], [-1, 1, "Dynamic_conv2d", [16, 1, 1]]],
    "condconv": [[-1, 1, "CondConv", [16, 3, 2]], [-1, 1, "CondConv", [16, 1, 1]]],
    "odconv": [[-1, 1, "ODConv", [16, 3, 2]], [-1, 1, "ODConv", [16, 1, 1]]],
    "norm": [[-1, 1, "DynamicConv", [16, 3, 2, {"norm": True}]], [-1, 1, "C3Dynamic", [16, {"norm": True}]]],
    "residual": [
        [-1, 1, "DynamicConv", [16, 3, 2, {"residual": True}]],
        [-1, 1, "C3Dynamic", [16, {"residual": True}]],
    ],
    "norm and residual": [
        [-1, 1, "ODConv", [16, 3, 2, {"norm": True, "residual": True}]],
        [-1, 1, "Dynamic_conv2d", [16, 1, {"norm": True, "residual": True}]],
    ],
    "pixels": [[-1, 1, "Focus", [16, 3]], [-1, 1, "Contract", [2]], [-1, 1, "Expand", [2]], [-1, 1, "Conv", [16, 1]]],
    "se": [[-1, 1, "SEConv", [16, 3, 2]], [-1, 1, "C3SE", [16]]],
}


def tiny_yaml(kind: str) -> dict[str, Any]:
    backbone = [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [8, 3, 2]], *ROWS[kind]]
    levels = [len(backbone) - 1, len(backbone)]
    return {
        "nc": 3, "depth_multiple": 1.0, "width_multiple": 1.0,
        "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
        "backbone": backbone,
        "head": [[-1, 1, "Conv", [16, 3, 2]], [levels, 1, "Detect", ["nc", "anchors"]]],
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny(kind) -> best.pt`` of a model with the ``ROWS`` of that name and the classes ant, bee, 甲虫."""
    folder, made = tmp_path_factory.mktemp("tiny"), {}

    def make(kind: str) -> Path:
        if kind in made:
            return made[kind]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = Model(tiny_yaml(kind)).eval()
            set_temperature(model, 2)
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.2, 0.2)
                    module.running_var.uniform_(0.02, 0.2)
                elif isinstance(module, ChannelGate):  # both start as 0
                    torch.nn.init.normal_(module.fc2.weight)
                elif isinstance(module, Dynamic_conv2d) and module.static_weight is not None:
                    torch.nn.init.normal_(module.weight, std=0.2)
            for conv in model.head.m:
                conv.weight.mul_(4)
                conv.bias.view(model.head.na, -1)[:, 4:] = 1.0
        made[kind] = folder / f"{kind}.pt"
        save_checkpoint(
            made[kind],
            Checkpoint(
                model_yaml=model.yaml, nc=3, names=["ant", "bee", "甲虫"], stride=model.stride.tolist(),
                model=dict(model.state_dict()),
            ),
        )  # fmt: skip
        return made[kind]

    return make


@pytest.fixture
def exported(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., list[Any]]:
    """``exported(kind, **options) -> rows`` of export.py on a tiny model, into a folder of a difficult name."""
    from utils.config.options import ExportOptions
    from utils.export import export_checkpoint

    def run(kind: str, **options: Any) -> list[Any]:
        usual = {"imgsz": (64,), "output": str(tmp_path / "mit Leerzeichen ü 图"), "weights": (str(tiny(kind)),)}
        given = ExportOptions(**{**usual, **options})
        logging.getLogger("utils").setLevel(logging.INFO)
        return export_checkpoint(Path(given.weights[0]), given, torch.device("cpu"))

    return run
