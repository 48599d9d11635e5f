"""Names of ``utils.autobatch`` of YOLOv5 v6.1."""

from __future__ import annotations

import torch

from models.yolo import Model
from utils.config.options import TrainOptions
from utils.config.train_slices import StepOptions
from utils.training.autobatch import GPU_CAP, choose_batch_size


def check_train_batch_size(model: Model, imgsz: int = 640) -> int:
    """Return the batch size to train ``model`` with; see :func:`utils.training.autobatch.choose_batch_size`."""
    return autobatch(model, imgsz)


def autobatch(model: Model, imgsz: int = 640, fraction: float = 0.9, batch_size: int = 16) -> int:
    """Return the largest batch size that fits into ``fraction`` of the free memory of the model's device.

    Args:
        batch_size: largest size that is tried on a CPU.
    """
    device = next(model.parameters()).device
    images = GPU_CAP if device.type == "cuda" else batch_size
    with torch.random.fork_rng(devices=[]):
        return choose_batch_size(model, imgsz, device, StepOptions.of(TrainOptions()), images, fraction)
