"""AKConv, a convolution over any number of sampling positions: arXiv 2311.11587.

    python train.py --modules examples/layers/akconv.py --cfg examples/layers/yolov5n_akconv.yaml
    python export.py --modules examples/layers/akconv.py --weights best.pt --include onnx openvino --opset 16

A row is ``[-1, 1, AKConv, [outputs, N, stride]]``: N positions take the place of the k x k positions of a kernel, so
that the number of weights grows with N and not with the square of k.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common import ConvNormAct, activation
from models.registry import register


def initial_positions(n: int) -> Tensor:
    """The N sampling positions before any offset is learned: [2, N] rows and columns, from (0, 0).

    Full rows of about sqrt(N) positions, and what is left over in one more row; N = 9 is the grid of a 3x3 kernel.
    """
    width = round(n**0.5)
    index = torch.arange(n)
    return torch.stack([index // width, index % width])


class Sampling(nn.Module):
    """Values of a feature map at learned positions, by bilinear interpolation; outside of the map they are 0.

    Args:
        n: number of positions N. stride: of the output, in cells of the input.
    """

    def __init__(self, n: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("positions", initial_positions(n).float(), persistent=False)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Sample each channel at N positions for each output cell.

        Args:
            x: [B, C, H, W].
            offsets: [B, 2N, H', W'] in cells of the input, those of the rows first.

        Returns:
            [B, C*N, H', W'], channel c*N + p is position p of channel c.
        """
        rows, columns = offsets.shape[2], offsets.shape[3]
        down, right = offsets.float().chunk(2, dim=1)  # [B, N, H', W']; half precision is too coarse for positions
        row, column = self.positions[:, :, None, None].float()  # [N, 1, 1]
        y = row + self.stride * torch.arange(rows, device=x.device)[:, None] + down
        x_ = column + self.stride * torch.arange(columns, device=x.device) + right
        # In grid_sample -1 and 1 are the outer edges of the first and the last cell.
        grid = torch.stack([(2 * x_ + 1) / x.shape[3] - 1, (2 * y + 1) / x.shape[2] - 1], dim=-1)  # [B, N, H', W', 2]
        values = F.grid_sample(x.float(), grid.flatten(1, 2), padding_mode="zeros", align_corners=False)
        return values.reshape(x.shape[0], -1, rows, columns).to(x.dtype)  # from [B, C, N*H', W']

    def macs(self, x: Tensor, y: Tensor) -> int:
        """Multiply-adds of one call: each value is mixed from four."""
        return 4 * y.numel()


@register("scaled")
class AKConv(ConvNormAct):
    """Sampling at N positions with learned offsets, a convolution over the N samples of all channels, norm, activation.

    All offsets start at 0. Position (0, 0) is the upper left one, as published: with N = 9 the layer starts as a 3x3
    convolution whose zero padding is all on the right and at the bottom.

    Args:
        c1, c2: input and output channels.
        n: number of sampling positions N.
        s: stride.
        act: True for SiLU, False for none, or a module.
    """

    def __init__(self, c1: int, c2: int, n: int, s: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"N, the number of sampling positions, must be a whole number of at least 1, got {n}")
        self.offsets = nn.Conv2d(c1, 2 * n, kernel_size=3, stride=s, padding=1)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)
        self.sampling = Sampling(n, s)
        self.conv = nn.Conv2d(c1 * n, c2, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c1, H, W] -> [B, c2, H', W']."""
        return super().forward(self.sampling(x, self.offsets(x)))
