"""The detection model: read from a yaml, built row by row, and the head that turns maps into boxes."""

from __future__ import annotations

import ast
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models.common
from models.registry import LayerRow, Scale, look_up, register
from utils.errors import InputError, nearest
from utils.files import read_yaml

LOG = logging.getLogger(__name__)
MODELS_DIR = Path(__file__).resolve().parent
REQUIRED_KEYS = ("nc", "anchors", "backbone", "head")
OPTIONAL_KEYS = ("depth_multiple", "width_multiple", "ch")
PROBE_SIZE = 256  # px; a multiple of every stride in use


@register("head")
class Detect(nn.Module):
    """Anchor-based head: one 1x1 convolution per level.

    In training it returns the raw maps [B, na, ny, nx, nc+5]; in evaluation also the decoded boxes
    [B, sum(na*ny*nx), nc+5] (centre x, y, width, height in input pixels, objectness, class scores).

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
        maps = [self._split(conv(level)) for conv, level in zip(self.m, x)]
        if self.training:
            return maps
        decoded = [self._decode(level, scores) for level, scores in enumerate(maps)]
        return torch.cat(decoded, dim=1), maps

    def _split(self, y: Tensor) -> Tensor:
        """[B, na*no, ny, nx] -> [B, na, ny, nx, no]."""
        return y.unflatten(1, (self.na, self.no)).permute(0, 1, 3, 4, 2).contiguous()

    def _decode(self, level: int, raw: Tensor) -> Tensor:
        """Centre = (2s - 0.5 + cell) * stride, size = (2s)^2 * anchor, s = sigmoid(map). -> [B, na*ny*nx, no]."""
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
        """Start from few objects: about 8 per 640 px picture, each class with an equal share of 0.6."""
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
        self.model, self.save = parse_model(self.yaml, ch, self.yaml_file)
        self.sources = [row.sources for row in _read_rows(self.yaml, self.yaml_file)]
        self.names = [str(i) for i in range(self.yaml["nc"])]
        _norm_defaults(self)
        if not isinstance(self.model[-1], Detect):
            raise InputError(f"{self.yaml_file}: the last row must be Detect, not {type(self.model[-1]).__name__}")
        self.stride = self._probe_strides(ch)
        self.head.init_biases()

    @property
    def head(self) -> Detect:
        head = self.model[-1]
        assert isinstance(head, Detect)
        return head

    @property
    def nc(self) -> int:
        return self.head.nc

    def forward(self, x: Tensor) -> Any:
        """[B, C, H, W] in 0..1 -> what :class:`Detect` returns."""
        kept: dict[int, Tensor] = {}
        for index, (layer, sources) in enumerate(zip(self.model, self.sources)):
            inputs = [x if s == -1 else kept[s if s >= 0 else index + s] for s in sources]
            x = layer(inputs if takes_list(layer) else inputs[0])
            if index in self.save:
                kept[index] = x
        return x

    def _probe_strides(self, channels: int) -> Tensor:
        """Run a blank picture and see how far each level shrank it; anchors go from pixels to cells."""
        head, was_training = self.head, self.training
        self.eval()  # batch 1 in train mode would disturb the batch norm statistics
        with torch.no_grad():
            _, maps = self(torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE))
        self.train(was_training)
        head.stride = torch.tensor([PROBE_SIZE / level.shape[2] for level in maps])
        areas = head.anchors.prod(-1).mean(-1)  # [nl]
        if (areas[-1] - areas[0]) * (head.stride[-1] - head.stride[0]) < 0:
            LOG.warning("%s: anchors are listed from large to small, turned round to fit the strides", self.yaml_file)
            head.anchors.copy_(head.anchors.flip(0))
        head.anchors /= head.stride[:, None, None]
        return head.stride


def takes_list(layer: nn.Module) -> bool:
    """Layers over several sources get a list; all others one tensor."""
    return isinstance(layer, (models.common.Concat, Detect)) or getattr(layer, "takes_list", False)


def _norm_defaults(model: nn.Module) -> None:
    """eps 1e-3, momentum 0.03: the values the official weights were trained with."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03


def find_model_yaml(cfg: str | Path) -> Path:
    """``cfg`` as a path, or as the bare name of a yaml anywhere inside ``models/``."""
    path = Path(cfg)
    if path.is_file():
        return path
    shipped = {p.name: p for p in sorted(MODELS_DIR.rglob("*.yaml"))}
    if path.name == str(cfg) and path.name in shipped:
        return shipped[path.name]
    raise FileNotFoundError(
        f"--cfg {cfg}: no such model yaml (tried {path.absolute()} and the folder models/){nearest(path.name, shipped)}"
    )


def read_model_yaml(cfg: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The checked content of a model yaml and the name to use for it in messages."""
    if isinstance(cfg, Mapping):
        content, source = dict(cfg), str(cfg.get("yaml_file", "model yaml"))
        content.pop("yaml_file", None)
    else:
        path = find_model_yaml(cfg)
        content, source = read_yaml(path), path.name
    if not isinstance(content, dict):
        raise InputError(f"{source}: a model yaml must be a mapping with the keys {', '.join(REQUIRED_KEYS)}")
    for key in REQUIRED_KEYS:
        if key not in content:
            raise InputError(f"{source}: key '{key}' is missing; a model yaml needs {', '.join(REQUIRED_KEYS)}")
    known = (*REQUIRED_KEYS, *OPTIONAL_KEYS)
    for key in content:
        if key not in known:
            raise InputError(f"{source}: unknown key '{key}'{nearest(str(key), known)}; known: {', '.join(known)}")
    if not isinstance(content["nc"], int) or content["nc"] < 1:
        raise InputError(f"{source}: nc must be a whole number of at least 1, got {content['nc']!r}")
    return content, source


def _literal(value: Any, tokens: Mapping[str, Any]) -> Any:
    """Strings of a yaml row: the tokens nc and anchors, python literals such as None, otherwise the text itself."""
    if not isinstance(value, str):
        return value
    if value in tokens:
        return tokens[value]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _read_rows(content: Mapping[str, Any], source: str) -> list[LayerRow]:
    tokens = {"nc": content["nc"], "anchors": content["anchors"]}
    rows: list[LayerRow] = []
    for section in ("backbone", "head"):
        for number, raw in enumerate(content[section] or []):
            origin = f"{source}: {section} row {number}"
            if not (isinstance(raw, list) and len(raw) == 4 and isinstance(raw[3], list)):
                raise InputError(f"{origin}: expected [from, number, module, [arguments]], got {raw}")
            froms = tuple(raw[0]) if isinstance(raw[0], list) else (raw[0],)
            args = tuple(_literal(arg, tokens) for arg in raw[3])
            rows.append(LayerRow(len(rows), froms, int(raw[1]), str(raw[2]), args, origin))
    return rows


def parse_model(content: Mapping[str, Any], ch: int, source: str = "model yaml") -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model yaml.

    Args:
        content: the yaml's dict with nc, anchors, backbone, head and optional multiples.
        ch: channels of the picture.
        source: name for messages.

    Returns:
        The layers, each with ``i`` (index), ``f`` (sources), ``type`` and ``np`` (parameters), and the indices of the
        layers whose output later rows need.
    """
    scale = Scale(content.get("depth_multiple", 1.0), content.get("width_multiple", 1.0))
    outputs: list[int] = []  # channels by layer
    layers: list[nn.Module] = []
    needed: list[int] = []
    for row in _read_rows(content, source):
        for s in row.sources:
            if not isinstance(s, int) or s >= row.index or row.index + s < (-1 if row.index == 0 else 0):
                raise row.fail(f"'from' {s} does not name an earlier layer; there are {row.index} before this one")
        channels = [ch if row.index == 0 else outputs[s if s >= 0 else row.index + s] for s in row.sources]
        layer, out = _build(row, channels, scale)
        outputs.append(out)
        layers.append(layer)
        needed.extend(s % row.index for s in row.sources if s != -1)
    return nn.Sequential(*layers), sorted(needed)


def _build(row: LayerRow, channels: Sequence[int], scale: Scale) -> tuple[nn.Module, int]:
    entry = look_up(row)
    plan = entry.rule(row, channels, scale)
    try:
        copies = [entry.cls(*plan.args)]
        for _ in range(plan.copies - 1):  # later copies start from the width the first one gave
            copies.append(entry.cls(plan.out_channels, *plan.args[1:]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise row.fail(f"cannot be built with arguments {list(plan.args)}: {error}") from error
    layer = copies[0] if plan.copies == 1 else nn.Sequential(*copies)
    layer.i, layer.f, layer.type = row.index, row.sources, row.module  # type: ignore[assignment]
    layer.np = sum(p.numel() for p in layer.parameters())  # type: ignore[assignment]
    return layer, plan.out_channels
