"""Names that scripts written for YOLOv5 v6.1 import from here: the batch size that fits into memory."""

from __future__ import annotations

import torch

from models.yolo import Model
from utils.config.options import TrainOptions
from utils.training.autobatch import GPU_CAP, choose_batch_size


def check_train_batch_size(model: Model, imgsz: int = 640) -> int:
    """The batch size to train ``model`` with; see :func:`utils.training.autobatch.choose_batch_size`."""
    return autobatch(model, imgsz)


def autobatch(model: Model, imgsz: int = 640, fraction: float = 0.9, batch_size: int = 16) -> int:
    """The largest batch that stays within ``fraction`` of the free memory, where the model is.

    Args:
        batch_size: v6.1's answer for a CPU; here the most that is tried there.
    """
    device = next(model.parameters()).device
    images = GPU_CAP if device.type == "cuda" else batch_size
    with torch.random.fork_rng(devices=[]):
        return choose_batch_size(model, imgsz, device, TrainOptions(), images, fraction)
