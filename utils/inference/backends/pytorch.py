"""Checkpoints (``.pt``) run by PyTorch itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.inference.attempt_load import attempt_load


class PyTorchBackend(nn.Module):
    """One checkpoint, or several as an ensemble.

    Attributes:
        model: the network itself; ``model.half()`` and ``model.float()`` are allowed.
        names: of the classes. stride: the largest, in pixels.
    """

    def __init__(self, weights: Sequence[str | Path], device: torch.device, fuse: bool = True) -> None:
        super().__init__()
        self.model = attempt_load(weights, device, fuse=fuse)
        self.names = list(self.model.names)
        self.stride = int(self.model.stride.max())
        self.imgsz = self.model.imgsz

    @property
    def fp16(self) -> bool:
        """Whether images must come in half precision."""
        return next(self.model.parameters()).dtype == torch.float16

    def forward(self, images: Tensor, augment: bool = False) -> tuple[Tensor, list[Tensor] | None]:
        """[B, 3, H, W] in 0..1 -> (decoded [B, N, nc + 5], predictions of each level; None for an ensemble)."""
        decoded, levels = self.model(images, augment)
        return decoded, levels
