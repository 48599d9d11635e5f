"""Mixed precision, which is compared with float32 on one batch before a run uses it."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from models.shape_check import CHECK_SIZE
from models.yolo import Model
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
LIMIT = 0.05  # models that work, trained or not, were measured to differ by 0.0004 in float16 and 0.004 in bfloat16


def mixed_precision(requested: bool | None, model: Model, device: torch.device) -> bool:
    """Decide whether to train and validate in mixed precision: float16 on a GPU, bfloat16 on a CPU.

    Args:
        requested: by ``--amp`` or ``--no-amp``; None: on a GPU, unless it does not work there.
        model: with the weights that training starts from, on ``device``.
        device: that is trained on.

    Raises:
        InputError: ``--amp``, and the model's outputs are not finite in mixed precision.
    """
    if not (device.type == "cuda" if requested is None else requested):
        return False
    dtype = torch.get_autocast_dtype(device.type)
    kind = str(dtype).removeprefix("torch.")
    difference = amp_deviation(model, _noise(model, device), dtype)
    if difference <= LIMIT:
        LOG.info("mixed precision (%s): outputs differ from those in float32 by %.2g %%", kind, 100 * difference)
        return True
    broken = not math.isfinite(difference)
    what = "are not finite" if broken else f"differ from those in float32 by {100 * difference:.3g} %"
    fault = f"mixed precision ({kind}) does not work here with this model: its outputs {what}"
    if requested is None:
        LOG.warning("%s; training in float32, slower and with more memory", fault)
        return False
    if broken:
        raise InputError(f"--amp: {fault}; omit --amp, or start from other weights")
    LOG.warning("%s; used since --amp requests it: --no-amp is safe", fault)
    return True


def kept_precision(requested: bool | None, before: bool | None, device: torch.device) -> bool:
    """Decide for a resumed run: as ``before`` on a GPU and float32 on a CPU, unless ``requested`` otherwise."""
    if requested is not None:
        return requested
    return device.type == "cuda" and before is not False


@torch.no_grad()
def amp_deviation(model: Model, images: Tensor, dtype: torch.dtype) -> float:
    """Return how far the predictions for [B, C, H, W] in mixed precision are from those in float32.

    It is the largest, over the levels, of the length of the difference divided by the length of the prediction;
    infinite when predictions are not finite in mixed precision only.
    """
    was_training = model.training
    model.eval()  # keeps the batch norm statistics
    try:
        _, exact = model(images)
        with torch.autocast(images.device.type, dtype=dtype):
            _, mixed = model(images)
    finally:
        model.train(was_training)
    largest = 0.0
    for expected, actual in zip(exact, mixed, strict=True):
        if not expected.isfinite().all():
            continue  # broken in any precision: the check of the loss names the layer
        gap = float((actual.float() - expected).norm() / expected.norm().clamp(min=1e-12))
        largest = max(largest, gap if math.isfinite(gap) else math.inf)
    return largest


def _noise(model: Model, device: torch.device) -> Tensor:
    """Return [2, C, side, side] noise, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, model.yaml["ch"], CHECK_SIZE, CHECK_SIZE, generator=generator).to(device)
