"""Does mixed precision give what float32 gives? Tried on one batch before a run relies on it."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from models.shape_check import CHECK_SIZE
from models.yolo import Model
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
LIMIT = 0.05  # sound models, trained or not, were seen to differ by 0.0004 in float16 and by 0.004 in bfloat16


def mixed_precision(asked: bool | None, model: Model, device: torch.device) -> bool:
    """Whether to train and validate in mixed precision: float16 on a GPU, bfloat16 on a CPU.

    Args:
        asked: what ``--amp`` or ``--no-amp`` says; None: on a GPU, unless it is found not to work there.
        model: with the weights that training starts from, on ``device``.

    Raises:
        InputError: ``--amp``, and the model's outputs are not finite in mixed precision.
    """
    if not (device.type == "cuda" if asked is None else asked):
        return False
    dtype = torch.get_autocast_dtype(device.type)
    kind = str(dtype).removeprefix("torch.")
    found = deviation(model, _noise(model, device), dtype)
    if found <= LIMIT:
        LOG.info("mixed precision (%s): outputs differ from those in float32 by %.2g %%", kind, 100 * found)
        return True
    broken = not math.isfinite(found)
    what = "are not finite" if broken else f"differ from those in float32 by {100 * found:.3g} %"
    fault = f"mixed precision ({kind}) does not work here with this model: its outputs {what}"
    if asked is None:
        LOG.warning("%s; going on in float32, slower and with more memory", fault)
        return False
    if broken:
        raise InputError(f"--amp: {fault}; leave --amp out, or start from other weights")
    LOG.warning("%s; going on since --amp asks for it: --no-amp is safe", fault)
    return True


def kept_precision(asked: bool | None, before: bool | None, device: torch.device) -> bool:
    """What a resumed run does: what it did ``before``, unless it is on a CPU now or ``asked`` to do otherwise."""
    if asked is not None:
        return asked
    return device.type == "cuda" and before is not False


@torch.no_grad()
def deviation(model: Model, images: Tensor, dtype: torch.dtype) -> float:
    """How far the raw maps of [B, C, H, W] in mixed precision are from those in float32.

    The largest of the levels' figures: length of the difference divided by the length of the map; infinite when a map
    has elements that are not finite in mixed precision only.
    """
    was_training = model.training
    model.eval()  # leaves the batch norm statistics alone
    try:
        _, exact = model(images)
        with torch.autocast(images.device.type, dtype=dtype):
            _, mixed = model(images)
    finally:
        model.train(was_training)
    worst = 0.0
    for reference, found in zip(exact, mixed, strict=True):
        if not reference.isfinite().all():
            continue  # broken in any precision: the watch over the loss names the layer
        gap = float((found.float() - reference).norm() / reference.norm().clamp(min=1e-12))
        worst = max(worst, gap if math.isfinite(gap) else math.inf)
    return worst


def _noise(model: Model, device: torch.device) -> Tensor:
    """[2, C, side, side] always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, model.yaml["ch"], CHECK_SIZE, CHECK_SIZE, generator=generator).to(device)
