"""Names about models and devices that scripts written for YOLOv5 v6.1 import from here. Nothing inside does."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from models.fuse import fuse_conv_bn as fuse_conv_and_bn
from models.summary import summarize
from models.tta import PADDING, View
from models.yolo import norm_defaults as initialize_weights  # Model does so by itself
from utils.checkpoint.transfer import intersect_dicts
from utils.device import select_device as _select_device
from utils.errors import InputError
from utils.training.early_stop import EarlyStopping
from utils.training.ema import ModelEMA as _ModelEMA

LOG = logging.getLogger(__name__)


def select_device(
    device: str | torch.device | int | None = "", batch_size: int | None = 0, newline: bool = True
) -> torch.device:
    """The device to run on: "cpu", "0", "0,1", "" for the first GPU if there is one.

    Raises:
        InputError: not a device, a GPU that is not there, or a batch that several GPUs cannot share equally.
    """
    wanted = "" if device is None else str(device)
    gpus = wanted.count(",") + 1
    if batch_size and batch_size > 0 and batch_size % gpus:
        raise InputError(f"batch size {batch_size} is not a multiple of the {gpus} GPUs of device '{device}'")
    return _select_device("0" if wanted == "cuda" else wanted)


def time_sync() -> float:
    """The time in seconds, after all queued GPU work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


def is_parallel(model: nn.Module) -> bool:
    """Whether a model is wrapped for several GPUs."""
    return isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))


def de_parallel(model: nn.Module) -> nn.Module:
    """The model inside such a wrapper, else the model itself."""
    return model.module if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else model


@contextlib.contextmanager
def torch_distributed_zero_first(local_rank: int) -> Iterator[None]:
    """Let process 0 do the body first, the others wait for it; a single process (-1) just does it."""
    if local_rank > 0:
        distributed.barrier(device_ids=[local_rank] if torch.cuda.is_available() else None)
    yield
    if local_rank == 0:
        distributed.barrier(device_ids=[0] if torch.cuda.is_available() else None)


def model_info(model: nn.Module, verbose: bool = False, img_size: int | list[int] = 640) -> None:
    """Log layers, parameters and GFLOPs; with ``verbose`` also name, shape, mean and deviation of each parameter."""
    if verbose:
        for name, parameter in model.named_parameters():
            values = parameter.detach().float()
            mean, deviation = values.mean().item(), values.std(correction=0).item()
            LOG.info("%-50s %-22s mean %9.3g, deviation %9.3g", name, list(parameter.shape), mean, deviation)
    LOG.info("%s", summarize(model, img_size if isinstance(img_size, int) else max(img_size)))


def scale_img(img: Tensor, ratio: float = 1.0, same_shape: bool = False, gs: int = 32) -> Tensor:
    """Pictures [B, C, H, W] scaled by ``ratio``, then filled up with grey at the right and bottom.

    Args:
        same_shape: fill up to the size that came in, not to the next multiples of ``gs``.
        gs: the model's largest stride.
    """
    scaled = View(ratio).of(img, gs)
    if not same_shape:
        return scaled
    missing_w, missing_h = img.shape[3] - scaled.shape[3], img.shape[2] - scaled.shape[2]
    return F.pad(scaled, (0, missing_w, 0, missing_h), value=PADDING)  # a negative number cuts off


def copy_attr(a: Any, b: Any, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
    """Copy attributes of ``b`` to ``a``: all, or those in ``include``, less those in ``exclude`` and private ones."""
    wanted, barred = set(include), set(exclude)
    for name, value in vars(b).items():
        if not name.startswith("_") and name not in barred and (not wanted or name in wanted):
            setattr(a, name, value)


class ModelEMA(_ModelEMA):
    """The average of the weights; ``ema`` is the averaged model, which is called ``model`` elsewhere."""

    @property
    def ema(self) -> nn.Module:
        return self.model

    def decay(self, x: int) -> float:
        """Share of the average that update number ``x`` keeps."""
        return self.decay_at(x)

    def update_attr(
        self, model: nn.Module, include: Iterable[str] = (), exclude: Iterable[str] = ("process_group", "reducer")
    ) -> None:
        """Copy attributes of ``model``, such as ``names``, to the average."""
        copy_attr(self.model, model, include, exclude)


__all__ = [
    "EarlyStopping",
    "ModelEMA",
    "copy_attr",
    "de_parallel",
    "fuse_conv_and_bn",
    "initialize_weights",
    "intersect_dicts",
    "is_parallel",
    "model_info",
    "scale_img",
    "select_device",
    "time_sync",
    "torch_distributed_zero_first",
]
