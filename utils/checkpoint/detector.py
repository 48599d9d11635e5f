"""From the files of ``--weights`` to the one thing that finds boxes: a model, an ensemble, or their augmented form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from models.dynamic import temperatures
from models.ensemble import Detector, Ensemble
from models.tta import AugmentedModel
from models.yolo import Model
from utils.checkpoint.find import newest_checkpoint
from utils.checkpoint.format import Checkpoint, load_model

LOG = logging.getLogger(__name__)


def load_detector(
    weights: str | Path | Sequence[str | Path], device: torch.device | str, runs: Path, augment: bool = False
) -> tuple[Detector, Checkpoint]:
    """Load checkpoints for use, each in evaluation mode on ``device``.

    Args:
        weights: one file or several, which become an ensemble; none (or ""): the newest ``best.pt`` below ``runs``.
        augment: look at every image in three views.

    Returns:
        The detector and the checkpoint of the first file.

    Raises:
        FileNotFoundError, InputError: a file is missing or unreadable, or the models have different classes.
    """
    named = [weights] if isinstance(weights, (str, Path)) else weights
    files = [Path(name) for name in named if str(name)] or [newest_checkpoint(runs, "best.pt")]
    members: list[Model | AugmentedModel] = []
    checkpoints = []
    for file in files:
        model, checkpoint = load_model(file, device)
        found = ", ".join(f"{temperature:g}" for temperature in temperatures(model))
        LOG.info("weights: %s%s", file, f", dynamic layers at T={found}" if found else "")
        members.append(AugmentedModel(model).eval() if augment else model)
        checkpoints.append(checkpoint)
    detector = members[0] if len(members) == 1 else Ensemble(members, [str(file) for file in files]).eval()
    return detector, checkpoints[0]
