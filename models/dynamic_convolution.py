"""Convolutions whose kernel is mixed for every image, and the ways to compute them.

In float32 all ways agree to 2e-5. Training and eager use take A or B. The others are for exported files: most formats
fix the number of groups of A to the batch it was exported with, and some take only convolutions with a constant kernel.
"""

from __future__ import annotations

import enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import KernelRouting
from models.memory_format import is_channels_last

DEFAULT_TEMPERATURE = 34.0  # of a routing at its start, where the row of the model yaml gives none
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # the former since torch 2.7


class DynamicForm(enum.Enum):
    """Ways to compute the same dynamic convolution."""

    GROUPED = "A"  # mix the kernels, fold the batch into the channels, one convolution with groups = batch
    SINGLE = "A1"  # the same for a batch of one: an ordinary convolution with a computed kernel
    MATMUL = "B"  # 1x1, stride 1: mix the kernels, then one matrix product per image
    PATCHES = "F"  # as B for any kernel, on patches that a depthwise convolution with constant kernels cuts out
    MERGED = "M"  # the input once per kernel, scaled by the kernel's weight; one convolution with a constant kernel


class DynamicConvolution(nn.Module):
    """Base of dynamic convolutions: y_b = x_b * sum_k pi_bk W_k + sum_k pi_bk b_k.

    A subclass gives the routing, which computes pi, in :meth:`make_attention`.

    Args:
        in_planes, out_planes, kernel_size, stride, padding, dilation, groups, bias: as for ``nn.Conv2d``.
        K: number of kernels.
        init_weight: Kaiming initialisation of the kernels; False uses the default of ``nn.Conv2d``.
        residual: a static kernel ``static_weight`` that every image uses, plus the mixed ones, which start at zero:
            W0 + sum_k pi_bk W_k.
        routing, options: arguments of ``make_attention``, such as the temperature.
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        K: int = 4,
        *routing: Any,
        init_weight: bool = True,
        residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        whole = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "groups": groups, "K": K}
        for name, value in {**whole, "padding": padding}.items():
            least = 1 if name in whole else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if in_planes % groups or out_planes % groups:
            raise ValueError(f"groups={groups} must divide in_planes={in_planes} and out_planes={out_planes}")
        if bias not in (True, False):  # other programs have the ratio of the attention in its place
            raise ValueError(f"bias must be True or False, got {bias}")
        self.in_planes, self.out_planes, self.kernel_size = in_planes, out_planes, kernel_size
        self.stride, self.padding, self.dilation, self.groups, self.K = stride, padding, dilation, groups, K
        self._form: DynamicForm | None = None
        self.attention: Any = self.make_attention(*routing, **options)
        self.weight = nn.Parameter(torch.empty(K, out_planes, in_planes // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(K, out_planes)) if bias else None
        for kernel in self.weight:  # each kernel its own draw: K equal copies would never learn to differ
            nn.init.kaiming_uniform_(kernel, a=0 if init_weight else 5**0.5)
        self.static_weight: nn.Parameter | None = None
        if residual:
            if not self.routing.sums_to_one:
                raise ValueError(f"residual needs weights that sum to one; those of {type(self).__name__} do not")
            self.static_weight = nn.Parameter(self.weight[0].detach().clone())
            nn.init.zeros_(self.weight)

    def make_attention(self, *routing: Any, **options: Any) -> nn.Module:
        """Return the module that gives the weights of the kernels, [B, C, H, W] -> [B, K]."""
        raise NotImplementedError

    @property
    def routing(self) -> KernelRouting:
        """The part of ``attention`` that gives the weights of the K kernels."""
        routing: KernelRouting = self.attention
        return routing

    @property
    def kernels(self) -> Tensor:
        """[K, out, in/g, k, k] to be mixed; the weights sum to one, so a static part is the same in each of them."""
        return self.weight if self.static_weight is None else self.weight + self.static_weight

    @torch.no_grad()
    def merge_static(self) -> None:
        """Add the static part, if there is one, to all kernels for good: the same layer with fewer parameters."""
        if self.static_weight is not None:
            self.weight.copy_(self.kernels)
            self.static_weight = None

    def start_neutral(self, even: bool = True) -> float:
        """Prepare the attentions for kernels that are copied from a static convolution.

        Args:
            even: give every kernel the weight 1/K for every image.

        Returns:
            The factor by which the output of every image is scaled.
        """
        if even:
            self.routing.start_uniform()
        return 1.0

    def update_temperature(self) -> None:
        self.attention.update_temperature()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        if x.shape[0] == 0:
            return self._without_images(x)
        pi = self.attention(x).to(self.weight.dtype)  # [B, K]
        return self._add_bias(self.convolve(x, pi), pi)

    def macs(self, x: Tensor, y: Tensor) -> int:
        """Multiply-adds of one call: routing, mixing of the K kernels, the convolution itself."""
        values = self.weight[0].numel() + (self.out_planes if self.bias is not None else 0)
        mixing = x.shape[0] * self.K * values
        return self.attention.macs(x) + mixing + y.numel() * self.weight[0, 0].numel()

    def _add_bias(self, y: Tensor, pi: Tensor) -> Tensor:
        """Added after the convolution: converters refuse a computed bias argument."""
        return y if self.bias is None else y + (pi @ self.bias)[:, :, None, None]

    def _without_images(self, x: Tensor) -> Tensor:
        """A batch of no images has no kernels to mix."""
        return F.conv2d(x, self.kernels[0], None, self.stride, self.padding, self.dilation, self.groups)

    # --- the forms ---------------------------------------------------------------------------------------------------

    @property
    def form(self) -> DynamicForm:
        """The form in use: unless ``use_form`` has set one, that for eager use by tests/benchmarks/dynamic_forms.py."""
        if self._form is not None:
            return self._form
        return DynamicForm.MATMUL if self._is_pointwise() else DynamicForm.GROUPED

    def use_form(self, wanted: DynamicForm) -> None:
        """Compute in another form from now on, for export; the weights must not change afterwards.

        Where B is impossible, F is used, which does the same arithmetic.
        """
        impossible = wanted is DynamicForm.MATMUL and not self._is_pointwise()
        self._form = DynamicForm.PATCHES if impossible else wanted
        for name, constant in self._make_constants().items():
            self.register_buffer(f"_{name}", constant, persistent=False)

    @property
    def constants(self) -> dict[str, Tensor]:
        """The kernels made by ``use_form``, see :meth:`_make_constants`."""
        return {name[1:]: buffer for name, buffer in self.named_buffers(recurse=False)}

    def _is_pointwise(self) -> bool:
        """Whether every output pixel depends on one input pixel alone: then the layer is a matrix product."""
        return self.kernel_size == 1 and self.stride == 1 and self.padding == 0 and self.groups == 1

    def _make_constants(self) -> dict[str, Tensor]:
        """The kernels that the form needs besides the weights.

        ``patches``: [in*k*k, 1, k, k], channel c*k*k+p picks place p of channel c. ``merged``: [out, K*in/g, k, k] and
        ``merged_patches`` [out, K*in*k*k/g, 1, 1], the K kernels side by side.
        """
        if self._form not in (DynamicForm.PATCHES, DynamicForm.MERGED):
            return {}
        kernels = self.kernels.detach()
        k, out, inner, side, _ = kernels.shape
        places = torch.eye(side * side, dtype=kernels.dtype, device=kernels.device).view(-1, 1, side, side)
        constants = {"patches": places.repeat(inner * self.groups, 1, 1, 1)}
        if self._form is DynamicForm.MERGED:
            merged = kernels.transpose(0, 1)  # [out, K, in/g, k, k]
            constants["merged"] = merged.reshape(out, k * inner, side, side).contiguous()
            constants["merged_patches"] = merged.reshape(out, -1, 1, 1).contiguous()
        return constants

    def convolve(self, x: Tensor, pi: Tensor, spatial: Tensor | None = None) -> Tensor:
        """Convolve each image with its own kernel, without bias.

        Args:
            x: [B, in, H, W].
            pi: [B, K] weights of the kernels.
            spatial: [B, 1, 1, k, k] weights of the places of the kernel (ODConv), None for ones.

        Returns:
            [B, out, H', W'].
        """
        if self.form is DynamicForm.MERGED:
            return self._convolve_merged(x, pi, spatial)
        kernels = self.kernels
        mixed = (pi @ kernels.flatten(1)).view(-1, *kernels.shape[1:])  # [B, out, in/g, k, k]
        if spatial is not None:
            mixed = (mixed * spatial).to(kernels.dtype)
        if self.form is DynamicForm.MATMUL:
            if not _exporting() and is_channels_last(x):  # transposed, so that neither feature map has to be copied
                rows = x.permute(0, 2, 3, 1).flatten(1, 2).to(mixed.dtype)
                y = torch.bmm(rows, mixed.flatten(2).mT)  # [B, H*W, in] @ [B, in, out]
                return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
            y = torch.bmm(mixed.flatten(2), x.flatten(2).to(mixed.dtype))  # [B, out, in] @ [B, in, H*W]
            return y.view(x.shape[0], -1, *x.shape[2:])
        if self.form is DynamicForm.PATCHES:
            return self._convolve_patches(x, mixed)
        if self.form is DynamicForm.SINGLE:
            return self._conv2d(x, mixed.squeeze(0), self.groups)
        batch, _, height, width = x.shape
        y = self._conv2d(x.reshape(1, -1, height, width), mixed.flatten(0, 1), batch * self.groups)
        return y.view(batch, -1, *y.shape[2:])

    def _conv2d(self, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
        return F.conv2d(x, kernel, None, self.stride, self.padding, self.dilation, groups)

    def _cut_patches(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, in*k*k, H', W']: the input of the kernel at each place, place fastest."""
        return self._conv2d(x, self.constants["patches"], x.shape[1])

    def _convolve_patches(self, x: Tensor, mixed: Tensor) -> Tensor:
        patches = self._cut_patches(x)
        g, out = self.groups, self.kernels.shape[1]
        if g == 1:
            y = torch.bmm(mixed.flatten(2), patches.flatten(2))
        else:
            depth = patches.shape[1] // g
            places = patches.shape[2] * patches.shape[3]
            y = torch.matmul(mixed.reshape(-1, g, out // g, depth), patches.reshape(-1, g, depth, places))
        return y.reshape(patches.shape[0], out, patches.shape[2], patches.shape[3])

    def _convolve_merged(self, x: Tensor, pi: Tensor, spatial: Tensor | None) -> Tensor:
        k, g = self.kernels.shape[0], self.groups
        if spatial is not None:
            weights = spatial.flatten(1).repeat(1, x.shape[1])[:, :, None, None]  # [B, in*k*k, 1, 1]
            x, kernel, geometry = self._cut_patches(x) * weights, self.constants["merged_patches"], (1, 0, 1)
        else:
            kernel, geometry = self.constants["merged"], (self.stride, self.padding, self.dilation)
        if g == 1:
            scaled = (x[:, None] * pi[:, :, None, None, None]).flatten(1, 2)  # [B, K*in, H, W]
        else:
            depth, height, width = x.shape[1] // g, x.shape[2], x.shape[3]
            # [B, g, K, in/g, H, W]
            parts = x.reshape(-1, g, 1, depth, height, width) * pi[:, None, :, None, None, None]
            scaled = parts.reshape(-1, g * k * depth, height, width)
        return F.conv2d(scaled.to(kernel.dtype), kernel, None, *geometry, g)
