"""The detection model, built from a yaml row by row, and the head that predicts boxes from feature maps."""

from __future__ import annotations

import logging
import math
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if __name__ == "__main__":  # python models/yolo.py: the packages lie beside its folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from models import blocks, dynamic, dynamic_variants, experimental  # noqa: F401 -- importing registers their layers
from models.activation import read_activation, replace_activations
from models.fuse import fuse
from models.limits import bounded_construction, check_limits
from models.parser import MODELS_DIR, find_model_yaml, is_ordinary, parse_model, read_model_yaml, read_rows
from models.registry import register
from models.shape_check import CHECK_SIZE, check_shapes, level_problem
from models.tta import augmented_forward
from utils.core.names import counted
from utils.core.v61 import import_served

__all__ = ["MODELS_DIR", "Detect", "Model", "find_model_yaml", "parse_model", "read_model_yaml"]

LOG = logging.getLogger(__name__)


@register("head")
class Detect(nn.Module):
    """Anchor-based head: one 1x1 convolution per level.

    In training it returns the raw predictions of the levels, [B, na, ny, nx, nc+5]; in evaluation the decoded boxes
    [B, sum(na*ny*nx), nc+5] (centre x, y, width, height in input pixels, objectness, class scores) and these.

    Args:
        nc: number of classes.
        anchors: per level a flat list w, h, w, h, ... in pixels.
        ch: channels of the levels.
    """

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], ch: Sequence[int]) -> None:
        super().__init__()
        self.nc, self.no = nc, nc + 5
        self.nl, self.na = len(anchors), len(anchors[0]) // 2
        self.stride = torch.zeros(self.nl)
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, kernel_size=1) for c in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        raw = [self._split(conv(level)) for conv, level in zip(self.m, x)]
        if self.training:
            return raw
        decoded = [self._decode(level, predictions) for level, predictions in enumerate(raw)]
        return torch.cat(decoded, dim=1), raw

    def _split(self, y: Tensor) -> Tensor:
        """[B, na*no, ny, nx] -> [B, na, ny, nx, no]."""
        return y.unflatten(1, (self.na, self.no)).permute(0, 1, 3, 4, 2).contiguous()

    def _decode(self, level: int, raw: Tensor) -> Tensor:
        """Centre = (2s - 0.5 + cell) * stride, size = (2s)^2 * anchor, s = sigmoid(raw). -> [B, na*ny*nx, no]."""
        ny, nx = raw.shape[2:4]
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))  # half has no room for pixels beyond 2048
        cells_y, cells_x = (torch.arange(n, device=raw.device, dtype=raw.dtype) for n in (ny, nx))
        cell = torch.stack([cells_x.expand(ny, nx), cells_y[:, None].expand(ny, nx)], dim=-1)  # [ny, nx, 2]
        stride = self.stride[level].to(raw)
        anchor_px = (self.anchors[level].to(raw) * stride)[:, None, None]  # [na, 1, 1, 2]
        s = raw.sigmoid()
        xy = (s[..., 0:2] * 2 - 0.5 + cell) * stride
        wh = (s[..., 2:4] * 2) ** 2 * anchor_px
        return torch.cat([xy, wh, s[..., 4:]], dim=-1).flatten(1, 3)

    @property
    def anchors_px(self) -> Tensor:
        """[nl, na, 2] in pixels."""
        return self.anchors * self.stride.to(self.anchors)[:, None, None]

    def set_anchors_px(self, anchors: Tensor) -> None:
        """Replace the anchors, given in pixels [nl, na, 2] or [nl*na, 2]."""
        in_cells = anchors.to(self.anchors).view_as(self.anchors) / self.stride.to(self.anchors)[:, None, None]
        self.anchors.copy_(in_cells)

    def init_biases(self) -> None:
        """Start with few expected objects: about 8 in a 640 px image, each class with an equal part of 0.6."""
        for conv, stride in zip(self.m, self.stride.tolist()):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            bias = conv.bias.detach().view(self.na, -1)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (self.nc - 0.999999))


class Model(nn.Module):
    """A detection model built from a yaml file (or its parsed dict).

    Args:
        cfg: path of a model yaml, a bare name of one inside ``models/``, or a dict.
        ch: input channels.
        nc: number of classes, in place of the yaml's.
        anchors: anchors per level in pixels, or a number of anchors per level, in place of the yaml's.

    Raises:
        FileNotFoundError, InputError: no such yaml, or a row of it cannot be built.
    """

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any],
        ch: int = 3,
        nc: int | None = None,
        anchors: int | Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.yaml, self.yaml_file = read_model_yaml(cfg)
        self.yaml["ch"] = ch = self.yaml.get("ch", ch)
        if nc is not None and nc != self.yaml["nc"]:
            LOG.info("model yaml has nc=%s, the data set has %s: building for %s", self.yaml["nc"], nc, nc)
            self.yaml["nc"] = nc
        if anchors is not None:
            self.yaml["anchors"] = anchors if isinstance(anchors, int) else [list(row) for row in anchors]
        rows = read_rows(self.yaml, self.yaml_file)
        self.sources = [row.sources for row in rows]
        if not is_ordinary(self.yaml, rows, ch, CHECK_SIZE):
            images = torch.zeros(1, ch, CHECK_SIZE, CHECK_SIZE)
            check_limits(repr(self.yaml), self.yaml_file, self._make_layers, images)
        with bounded_construction(self.yaml_file):
            self._make_layers()
        self.names = [str(i) for i in range(self.yaml["nc"])]
        self.imgsz: tuple[int, int] | None = None  # height and width it was trained at, where a checkpoint records it
        set_norm_defaults(self)
        if "act" in self.yaml:
            replace_activations(self, read_activation(self.yaml["act"], self.yaml_file))
        if not isinstance(self.model[-1], Detect):
            raise rows[-1].fail("the last row must be Detect, such as [[17, 20, 23], 1, Detect, [nc, anchors]]")
        predictions, strides = check_shapes(self, self.model, rows, ch)
        problem, fatal = level_problem(rows[-1], rows, strides)
        if fatal and not isinstance(cfg, Mapping):  # the model of a checkpoint is accepted
            raise rows[-1].fail(problem)
        if problem:
            LOG.warning("%s: Detect: %s", self.yaml_file, problem)
        self.stride = self._set_strides(predictions)
        self.head.init_biases()

    def _make_layers(self) -> Model:
        """Make the layers anew; returns the model."""
        self.model, self.save = parse_model(self.yaml, self.yaml["ch"], self.yaml_file)
        return self

    @property
    def head(self) -> Detect:
        head = self.model[-1]
        assert isinstance(head, Detect)
        return head

    @property
    def nc(self) -> int:
        return self.head.nc

    @nc.setter
    def nc(self, nc: int) -> None:
        """For training scripts of v6.1, which set the number that the model has."""
        if nc != self.head.nc:
            raise ValueError(
                f"the head is built for {counted(self.head.nc, 'class')}, not {nc}: Model(cfg, nc={nc}) builds another"
            )

    def forward(self, x: Tensor, augment: bool = False) -> Any:
        """[B, C, H, W] in 0..1 -> what :class:`Detect` returns; with ``augment`` decoded boxes of several views."""
        if augment:
            return augmented_forward(self, x), None
        kept: dict[int, Tensor] = {}
        for index, (layer, sources) in enumerate(zip(self.model, self.sources)):
            inputs = [x if s == -1 else kept[s if s >= 0 else index + s] for s in sources]
            x = layer(inputs if layer.takes_list else inputs[0])
            if index in self.save:
                kept[index] = x
        return x

    def fuse(self) -> Model:
        """Fold the norms into the convolutions, in place, for inference."""
        fuse(self)
        return self

    def info(self, verbose: bool = False, img_size: int = 640) -> None:
        """Log layers, parameters and GFLOPs; with ``verbose`` also a line per layer."""
        from models.summary import log_layer_table, summarize  # counting needs thop, which is slow to import

        if verbose:
            log_layer_table(self)
        LOG.info("%s at %d px", summarize(self, img_size), img_size)

    def _set_strides(self, predictions: Sequence[Tensor]) -> Tensor:
        """Set the strides of the head by the size of its predictions, and convert its anchors from pixels to cells."""
        head = self.head
        head.stride = torch.tensor([CHECK_SIZE / level.shape[2] for level in predictions])
        widths, heights = head.anchors.unbind(-1)  # [nl, na]
        areas = (widths * heights).sum(1)
        growth = [torch.log(of_levels[-1] / of_levels[0]) for of_levels in (areas, head.stride)]
        if growth[0] * growth[1] < 0:
            LOG.warning("%s: anchors are listed from large to small, reversed to fit the strides", self.yaml_file)
            head.anchors.copy_(head.anchors.flip(0))
        head.anchors /= head.stride[:, None, None]
        return head.stride


def set_norm_defaults(model: nn.Module) -> None:
    """Set eps 1e-3 and momentum 0.03, with which the official weights were trained."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03


DetectionModel = Model  # the name since v6.2


def __getattr__(name: str) -> Any:
    return import_served("models.yolo", name)


if __name__ == "__main__":  # python models/yolo.py --cfg my.yaml, by which tutorials for v6.1 try a yaml
    runpy.run_module("tools.profile", run_name="__main__")
