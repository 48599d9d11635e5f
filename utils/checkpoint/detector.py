"""Loading the files of ``--weights``: a model or an ensemble, with test-time augmentation if requested."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from models.dynamic import temperatures
from models.ensemble import Detector, Ensemble
from models.tta import AugmentedModel
from models.yolo import Model
from utils.checkpoint.format import Checkpoint, load_model

LOG = logging.getLogger(__name__)


def newest_checkpoint(runs: Path, name: str) -> Path:
    """Return the most recent file ``<run>/weights/<name>`` below ``runs``.

    Raises:
        FileNotFoundError: there is none.
    """
    file = max(runs.glob(f"*/weights/{name}"), key=lambda path: path.stat().st_mtime, default=None)
    if file is None:
        raise FileNotFoundError(f"no {name} below {runs}: train first (python train.py), or name a file with --weights")
    return file


def load_detector(
    weights: str | Path | Sequence[str | Path], device: torch.device | str, runs: Path, augment: bool = False
) -> tuple[Detector, Checkpoint]:
    """Load checkpoints in evaluation mode on ``device``.

    Args:
        weights: one file, or several for an ensemble; none (or ""): the newest ``best.pt`` below ``runs``.
        augment: test-time augmentation, with three views of every image.

    Returns:
        The detector, and the checkpoint of the first file.

    Raises:
        FileNotFoundError, InputError: a file is missing or unreadable, or the models have different classes.
    """
    named = [weights] if isinstance(weights, (str, Path)) else weights
    files = [Path(name) for name in named if str(name)] or [newest_checkpoint(runs, "best.pt")]
    members: list[Model | AugmentedModel] = []
    checkpoints = []
    for file in files:
        model, checkpoint = load_model(file, device)
        values = ", ".join(f"{temperature:g}" for temperature in temperatures(model))
        LOG.info("weights: %s%s", file, f", dynamic layers at T={values}" if values else "")
        members.append(AugmentedModel(model).eval() if augment else model)
        checkpoints.append(checkpoint)
    detector = members[0] if len(members) == 1 else Ensemble(members, [str(file) for file in files]).eval()
    return detector, checkpoints[0]
