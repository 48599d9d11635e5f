"""``attempt_load``: checkpoint files as models that answer the calls of scripts written for YOLOv5 v6.1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.ensemble import Ensemble
from models.fuse import fuse as fuse_norms
from models.tta import augmented_forward
from models.yolo import Model
from utils.checkpoint import load_model
from utils.config.class_names import ClassNames


class LoadedModel(Model):
    """A model whose call takes v6.1's arguments behind the images."""

    def forward(self, x: Tensor, augment: bool = False, profile: bool = False, visualize: bool = False) -> Any:
        """[B, 3, H, W] in 0..1 -> (decoded [B, N, nc + 5], predictions of each level, None with ``augment``).

        ``augment`` predicts three views. ``profile`` and ``visualize`` are accepted and do nothing; ``detect.py
        --visualize`` writes the feature maps.
        """
        return (augmented_forward(self, x), None) if augment else super().forward(x)


class LoadedEnsemble(Ensemble):
    """An ensemble of :class:`LoadedModel`, called the same way."""

    def forward(
        self, x: Tensor, augment: bool = False, profile: bool = False, visualize: bool = False
    ) -> tuple[Tensor, None]:
        """[B, 3, H, W] in 0..1 -> (boxes of all members [B, N1 + N2 + ..., nc + 5], None)."""
        return torch.cat([member(x, augment)[0] for member in self], dim=1), None


def attempt_load(
    weights: str | Path | Sequence[str | Path],
    map_location: torch.device | str | None = None,
    inplace: bool = True,
    fuse: bool = True,
    device: torch.device | str | None = None,
) -> Model | LoadedEnsemble:
    """Load one checkpoint, or several as an ensemble, in float32 and in evaluation mode.

    Args:
        weights: file, or files of models with the same classes.
        map_location, device: the device, by its name in v6.1 and by the later one; default: the CPU.
        inplace: without effect, nothing here works in place.
        fuse: fold batch norm into the convolutions. Such a model cannot be trained on.

    Raises:
        FileNotFoundError, InputError: a file is missing or unreadable, or the classes differ.
    """
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    members = [load_model(file, device or map_location or "cpu", LoadedModel)[0] for file in files]
    for member in members:
        member.names = ClassNames(member.names)
        if fuse:
            fuse_norms(member)
    return members[0] if len(members) == 1 else LoadedEnsemble(members, [str(file) for file in files]).eval()
