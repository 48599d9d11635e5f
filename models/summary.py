"""Parameters and GFLOPs of a model, dynamic layers included."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.common import Dynamic_conv2d

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSummary:
    layers: int  # modules, containers and the model itself included, as v6.1 counts
    parameters: int
    trainable: int
    gflops: float  # 2 x multiply-adds for one square picture of the given size

    def __str__(self) -> str:
        counts = f"{self.layers} layers, {self.parameters:,} parameters, {self.trainable:,} trainable"
        return f"{counts}, {self.gflops:.1f} GFLOPs"


def dynamic_conv_macs(layer: Dynamic_conv2d, x: Tensor, y: Tensor) -> int:
    """Multiply-adds of one call: attention, mixing of the K kernels, the convolution itself."""
    batch, channels, height, width = x.shape
    hidden = layer.attention.fc1.out_channels
    kernel = layer.weight[0].numel()
    attention = batch * (channels * height * width + channels * hidden + hidden * layer.K)
    mixing = batch * layer.K * (kernel + (layer.out_planes if layer.bias is not None else 0))
    convolution = y.numel() * kernel // layer.out_planes
    return attention + mixing + convolution


def _count_dynamic(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """thop's counter protocol: add to ``total_ops``."""
    assert isinstance(layer, Dynamic_conv2d)
    layer.get_buffer("total_ops").add_(dynamic_conv_macs(layer, inputs[0], output))


def count_gflops(model: nn.Module, imgsz: int = 640, channels: int = 3) -> float:
    """2 x multiply-adds / 1e9 for one picture of ``imgsz`` x ``imgsz`` px.

    Runs on meta tensors, so nothing is computed and the size is the real one (the constant cost of mixing kernels is
    not scaled up from a small picture).
    """
    import thop  # slow to import; only needed here

    shadow = copy.deepcopy(model).to("meta").float().eval()
    picture = torch.zeros(1, channels, imgsz, imgsz, device="meta")
    macs, _ = thop.profile(shadow, inputs=(picture,), custom_ops={Dynamic_conv2d: _count_dynamic}, verbose=False)
    return float(macs) * 2 / 1e9


def summarize(model: nn.Module, imgsz: int = 640) -> ModelSummary:
    """Count layers, parameters and GFLOPs."""
    parameters = list(model.parameters())
    return ModelSummary(
        layers=len(list(model.modules())),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        gflops=count_gflops(model, imgsz),
    )


def log_table(model: nn.Module) -> None:
    """One line per layer of the yaml: index, source, parameters, module."""
    LOG.info("%4s %14s %11s  %s", "", "from", "parameters", "module")
    for layer in model.model:  # type: ignore[union-attr]
        sources = list(layer.f) if len(layer.f) > 1 else layer.f[0]
        LOG.info("%4d %14s %11d  %s", layer.i, sources, layer.np, layer.type)
