"""Ways to compute a convolution whose kernel is mixed per image; in float32 all agree to 2e-5.

Training and eager use take A or B. The others are for files that other programs run: most formats freeze the group
count of A to the batch it was exported with, and some take only convolutions whose kernel is a constant.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.memory_format import is_channels_last

_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # the former since torch 2.7


class DynamicForm(enum.Enum):
    """Ways to compute the same dynamic convolution."""

    GROUPED = "A"  # mix the kernels, fold the batch into the channels, one convolution with groups = batch
    SINGLE = "A1"  # the same for a batch of one: an ordinary convolution with a computed kernel
    MATMUL = "B"  # 1x1, stride 1: mix the kernels, then one matrix product per image
    PATCHES = "F"  # as B for any kernel, on patches that a depthwise convolution with constant kernels cuts out
    MERGED = "M"  # the input once per kernel, scaled by the kernel's weight; one convolution with a constant kernel


class RoutedConv(Protocol):
    """What is needed of a dynamic layer, which knows this module: K kernels and the geometry of the convolution."""

    kernel_size: int
    stride: int
    padding: int
    dilation: int
    groups: int

    @property
    def kernels(self) -> Tensor:
        """[K, out, in/g, k, k]."""
        ...

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """The kernels of the forms F and M, see ``constants_of``."""
        ...


def is_pointwise(layer: RoutedConv) -> bool:
    """Whether the layer looks at single pixels, each once: then it is a matrix product."""
    return layer.kernel_size == 1 and layer.stride == 1 and layer.padding == 0 and layer.groups == 1


def eager_form(layer: RoutedConv) -> DynamicForm:
    """The form for training and eager use, by tests/benchmarks/dynamic_forms.py."""
    return DynamicForm.MATMUL if is_pointwise(layer) else DynamicForm.GROUPED


def export_form(layer: RoutedConv, wanted: DynamicForm) -> DynamicForm:
    """The form asked for; where B is impossible, F, which does the same arithmetic."""
    return DynamicForm.PATCHES if wanted is DynamicForm.MATMUL and not is_pointwise(layer) else wanted


def constants_of(layer: RoutedConv, form: DynamicForm) -> dict[str, Tensor]:
    """The kernels that ``form`` needs besides the layer's own weights.

    ``patches``: [in*k*k, 1, k, k], channel c*k*k+p picks place p of channel c. ``merged``: [out, K*in/g, k, k] and
    ``merged_patches`` [out, K*in*k*k/g, 1, 1], the K kernels side by side.
    """
    kernels = layer.kernels.detach()
    k, out, inner, side, _ = kernels.shape
    places = torch.eye(side * side, dtype=kernels.dtype, device=kernels.device).view(-1, 1, side, side)
    patches = places.repeat(inner * layer.groups, 1, 1, 1)
    merged = kernels.transpose(0, 1)  # [out, K, in/g, k, k]
    if form is DynamicForm.PATCHES:
        return {"patches": patches}
    if form is DynamicForm.MERGED:
        return {
            "patches": patches,
            "merged": merged.reshape(out, k * inner, side, side).contiguous(),
            "merged_patches": merged.reshape(out, -1, 1, 1).contiguous(),
        }
    return {}


def convolve(form: DynamicForm, layer: RoutedConv, x: Tensor, pi: Tensor, spatial: Tensor | None = None) -> Tensor:
    """The convolution of each image with its own kernel, without bias.

    Args:
        x: [B, in, H, W].
        pi: [B, K] weights of the kernels.
        spatial: [B, 1, 1, k, k] weights of the places of the kernel (ODConv), None for ones.

    Returns:
        [B, out, H', W'].
    """
    if form is DynamicForm.MERGED:
        return _merged(layer, x, pi, spatial)
    kernels = layer.kernels
    mixed = (pi @ kernels.flatten(1)).view(-1, *kernels.shape[1:])  # [B, out, in/g, k, k]
    if spatial is not None:
        mixed = (mixed * spatial).to(kernels.dtype)
    if form is DynamicForm.MATMUL:
        if not _exporting() and is_channels_last(x):  # the same transposed, so that neither map has to be copied
            rows = x.permute(0, 2, 3, 1).flatten(1, 2).to(mixed.dtype)
            y = torch.bmm(rows, mixed.flatten(2).mT)  # [B, H*W, in] @ [B, in, out]
            return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        y = torch.bmm(mixed.flatten(2), x.flatten(2).to(mixed.dtype))  # [B, out, in] @ [B, in, H*W]
        return y.view(x.shape[0], -1, *x.shape[2:])
    if form is DynamicForm.PATCHES:
        return _patches(layer, x, mixed)
    if form is DynamicForm.SINGLE:
        return _conv(layer, x, mixed.squeeze(0), layer.groups)
    batch, _, height, width = x.shape
    y = _conv(layer, x.reshape(1, -1, height, width), mixed.flatten(0, 1), batch * layer.groups)
    return y.view(batch, -1, *y.shape[2:])


def _conv(layer: RoutedConv, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
    return F.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation, groups)


def _cut(layer: RoutedConv, x: Tensor) -> Tensor:
    """[B, in, H, W] -> [B, in*k*k, H', W']: what the kernel sees at each place, place fastest."""
    return _conv(layer, x, layer.constants["patches"], x.shape[1])


def _patches(layer: RoutedConv, x: Tensor, mixed: Tensor) -> Tensor:
    cut = _cut(layer, x)
    g, out = layer.groups, layer.kernels.shape[1]
    if g == 1:
        y = torch.bmm(mixed.flatten(2), cut.flatten(2))
    else:
        depth = cut.shape[1] // g
        places = cut.shape[2] * cut.shape[3]
        y = torch.matmul(mixed.reshape(-1, g, out // g, depth), cut.reshape(-1, g, depth, places))
    return y.reshape(cut.shape[0], out, cut.shape[2], cut.shape[3])


def _merged(layer: RoutedConv, x: Tensor, pi: Tensor, spatial: Tensor | None) -> Tensor:
    k, g = layer.kernels.shape[0], layer.groups
    if spatial is not None:
        cut = _cut(layer, x)
        weights = spatial.flatten(1).repeat(1, x.shape[1])[:, :, None, None]  # [B, in*k*k, 1, 1]
        x, kernel, geometry = cut * weights, layer.constants["merged_patches"], (1, 0, 1)
    else:
        kernel, geometry = layer.constants["merged"], (layer.stride, layer.padding, layer.dilation)
    depth = x.shape[1] // g
    if g == 1:
        scaled = (x[:, None] * pi[:, :, None, None, None]).flatten(1, 2)  # [B, K*in, H, W]
    else:
        height, width = x.shape[2], x.shape[3]
        parts = x.reshape(-1, g, 1, depth, height, width) * pi[:, None, :, None, None, None]  # [B, g, K, in/g, H, W]
        scaled = parts.reshape(-1, g * k * depth, height, width)
    return F.conv2d(scaled.to(kernel.dtype), kernel, None, *geometry, g)
