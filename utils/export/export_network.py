"""The model as it is exported: norms folded, dynamic layers in a form that the format takes, boxes decoded."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.dynamic import use_form
from models.dynamic_convolution import DynamicForm
from models.fuse import fuse
from models.yolo import Detect, Model


class ExportHead(Detect):
    """The head with every constant a buffer and no tensor of more than four dimensions; it returns boxes alone.

    Args:
        head: the head of the model.
        hw: height and width of the input where both are fixed, so that the cells are constants; else None.
    """

    takes_list = True

    def __init__(self, head: Detect, hw: tuple[int, int] | None) -> None:
        nn.Module.__init__(self)  # the convolutions are those of ``head``, not new ones
        self.m, self.na, self.no = head.m, head.na, head.no
        self.fixed = hw is not None
        self.strides = [float(stride) for stride in head.stride]
        for level, anchors in enumerate(head.anchors_px.float()):
            self.register_buffer(f"anchors{level}", anchors.view(1, self.na, 1, 2))
            if hw is not None:
                sides = (round(hw[0] / self.strides[level]), round(hw[1] / self.strides[level]))
                self.register_buffer(
                    f"cells{level}", _cells(*(torch.arange(side, dtype=torch.float32) for side in sides))
                )

    def forward(self, x: list[Tensor]) -> Tensor:  # type: ignore[override]
        """Feature maps [B, c, ny, nx] of all levels -> [B, sum(na*ny*nx), no], as Detect decodes them."""
        return torch.cat([self._boxes(level, conv(y)) for level, (conv, y) in enumerate(zip(self.m, x))], dim=1)

    def _boxes(self, level: int, y: Tensor) -> Tensor:
        stride, anchors = self.strides[level], getattr(self, f"anchors{level}")
        if self.fixed:
            cells = getattr(self, f"cells{level}")
        else:
            cells = _cells(*(torch.arange(y.shape[axis], device=y.device, dtype=torch.float32) for axis in (2, 3)))
        y = y.float().reshape(-1, self.na, self.no, y.shape[2] * y.shape[3]).transpose(2, 3)  # [B, na, ny*nx, no]
        s = y.sigmoid()
        xy = (s[..., 0:2] * 2 + (cells - 0.5)) * stride
        double = s[..., 2:4] * 2
        wh = double * double * anchors
        return torch.cat([xy, wh, s[..., 4:]], dim=3).flatten(1, 2)

    def _apply(self, fn: object, recurse: bool = True) -> ExportHead:
        """half() keeps anchors and cells in float32: float16 has no separate values for pixels beyond 2048."""
        exact = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            self._buffers[name] = buffer.to(self.m[0].weight.device)  # type: ignore[arg-type]
        return self


def _cells(ys: Tensor, xs: Tensor) -> Tensor:
    """[ny], [nx] -> [1, 1, ny*nx, 2] x and y of every cell, row by row."""
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)[None, None]


class RawHead(Detect):
    """The head that returns raw predictions."""

    takes_list = True

    def __init__(self, head: Detect) -> None:
        nn.Module.__init__(self)
        self.m, self.na, self.no = head.m, head.na, head.no

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Feature maps [B, c, ny, nx] of all levels -> [B, na, ny, nx, no]."""
        outputs = [conv(level) for conv, level in zip(self.m, x)]
        split = [y.reshape(-1, self.na, self.no, y.shape[2], y.shape[3]) for y in outputs]
        return [y.permute(0, 1, 3, 4, 2) for y in split]


class ExportNetwork(nn.Module):
    """[B, 3, H, W] in 0..1 -> boxes [B, N, nc + 5] in pixels, float32.

    ``model`` is not changed.

    Args:
        model: in float32.
        form: of its dynamic layers.
        hw: height and width where both are fixed.
        half: compute in half precision and take such images.
    """

    def __init__(self, model: Model, form: DynamicForm, hw: tuple[int, int] | None, half: bool = False) -> None:
        super().__init__()
        self.net = copy.deepcopy(model).eval()
        fuse(self.net)
        self.forms = use_form(self.net, form)
        self.net.model[-1] = ExportHead(self.net.head, hw)
        if half:
            self.half()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        boxes: Tensor = self.net(images)
        return boxes


class RawNetwork(nn.Module):
    """[B, 3, H, W] in 0..1 -> the raw predictions [B, na, ny, nx, nc + 5] of the levels; norms stay separate layers."""

    def __init__(self, model: Model, form: DynamicForm) -> None:
        super().__init__()
        self.net = copy.deepcopy(model).eval()
        self.forms = use_form(self.net, form)
        self.net.model[-1] = RawHead(self.net.head)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net(images))
