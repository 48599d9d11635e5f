"""Names about models and devices that scripts written for YOLOv5 v6.1 import from here. Nothing inside does."""

from __future__ import annotations

import contextlib
import datetime
import logging
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.utils import prune as pruning

from models.fuse import fuse_conv_bn as fuse_conv_and_bn
from models.summary import count_macs, summarize
from models.tta import PADDING, View
from models.yolo import norm_defaults as initialize_weights  # Model does so by itself
from utils.checkpoint.transfer import intersect_dicts
from utils.core.device import select_device as _select_device
from utils.core.errors import InputError
from utils.training.early_stop import EarlyStopping
from utils.training.ema import ModelEMA as _ModelEMA
from utils.training.optim import build_optimizer

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
    """Images [B, C, H, W] scaled by ``ratio``, then filled up with grey at the right and bottom.

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


def date_modified(path: str | Path = __file__) -> str:
    """The day a file was last changed, as year-month-day without leading zeros."""
    day = datetime.datetime.fromtimestamp(Path(path).stat().st_mtime).date()
    return f"{day.year}-{day.month}-{day.day}"


def git_describe(path: str | Path = Path(__file__).parent) -> str:
    """What ``git describe`` says of a checkout, its last tag and commit; "" where there is no git or no checkout."""
    words = ["git", "-C", str(path), "describe", "--tags", "--long", "--always"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def device_count() -> int:
    """Number of GPUs that can be used."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_modules(model: nn.Module, mclass: type[nn.Module] = nn.Conv2d) -> list[int]:
    """Positions of the layers of a class in ``model.module_list``, or ``model.model`` where there is no such list."""
    layers = getattr(model, "module_list", None) or getattr(model, "model")  # noqa: B009 (not every module has it)
    return [i for i, layer in enumerate(layers) if isinstance(layer, mclass)]


def sparsity(model: nn.Module) -> float:
    """Share of the parameters that are 0."""
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    return sum(int((p == 0).sum()) for p in parameters) / total if total else 0.0


def prune(model: nn.Module, amount: float = 0.3) -> None:
    """Set that share of each convolution's weights to 0, in place: those nearest to it."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            pruning.l1_unstructured(layer, "weight", amount)
            pruning.remove(layer, "weight")  # the zeros stay, the mask goes
    LOG.info("pruned: %.3g of the parameters are 0", sparsity(model))


def profile(
    input: Tensor | Sequence[Tensor],
    ops: nn.Module | Callable[..., Any] | Sequence[Any],
    n: int = 10,
    device: str | torch.device | None = None,
) -> list[list[Any] | None]:
    """Time and size of layers: forward and backward in milliseconds, means of ``n``.

    Args:
        input: what they are given, one or several tensors. ops: modules or functions, one or several.
        device: where; None: the first GPU, else the CPU.

    Returns:
        For each input and operation: parameters, GFLOPs (0 for a function), GPU memory in GB, ms forward, ms backward
        (nan without a gradient), shape in, shape out; None when the operation failed, which is logged.
    """
    where = torch.device(device) if device is not None else select_device()
    inputs = [input] if isinstance(input, Tensor) else list(input)
    every: list[Any] = list(ops) if isinstance(ops, (list, tuple)) else [ops]
    row = "%12s%10s%10s%12s%12s%22s%22s"
    LOG.info(row, "parameters", "GFLOPs", "GB", "forward ms", "backward ms", "in", "out")
    results: list[list[Any] | None] = []
    for x in inputs:
        given = x.to(where).detach().requires_grad_()
        for op in every:
            try:
                found = _measure(op.to(where) if isinstance(op, nn.Module) else op, given, n)
            except Exception as error:  # one that fails must not lose the others
                LOG.error("%s: %s", type(op).__name__, error)
                results.append(None)
                continue
            parameters, gflops, memory, forward, backward, *shapes = found
            LOG.info(row, parameters, f"{gflops:.4g}", f"{memory:.3f}", f"{forward:.4g}", f"{backward:.4g}", *shapes)
            results.append(found)
    return results


def _measure(op: Callable[..., Any], x: Tensor, n: int) -> list[Any]:
    gflops = 2e-9 * count_macs(op, x) if isinstance(op, nn.Module) else 0.0
    forward = backward = 0.0
    y: Any = None
    for _ in range(n):
        start = time_sync()
        y = op(x)
        middle = time_sync()
        forward += middle - start
        out = y if isinstance(y, Tensor) else sum(part.sum() for part in y)
        if out.requires_grad:
            out.sum().backward()
            backward += time_sync() - middle
        else:
            backward = float("nan")
    memory = torch.cuda.memory_reserved() / 1e9 if torch.cuda.is_available() else 0.0
    parameters = sum(p.numel() for p in op.parameters()) if isinstance(op, nn.Module) else 0
    shape_out = tuple(y.shape) if isinstance(y, Tensor) else "list"
    return [parameters, gflops, memory, 1e3 * forward / n, 1e3 * backward / n, tuple(x.shape), shape_out]


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


def smart_inference_mode() -> Any:
    """Decorator for functions that need no gradients, as in v6.2."""
    return torch.inference_mode()


def smart_optimizer(
    model: nn.Module, name: str = "Adam", lr: float = 0.001, momentum: float = 0.9, decay: float = 1e-5
) -> torch.optim.Optimizer:
    """As :func:`utils.training.optim.build_optimizer`, under the name of v6.2 and with its defaults."""
    return build_optimizer(model, name, lr, momentum, decay)


__all__ = [
    "EarlyStopping",
    "ModelEMA",
    "copy_attr",
    "date_modified",
    "de_parallel",
    "device_count",
    "find_modules",
    "fuse_conv_and_bn",
    "git_describe",
    "initialize_weights",
    "intersect_dicts",
    "is_parallel",
    "model_info",
    "profile",
    "prune",
    "scale_img",
    "select_device",
    "smart_inference_mode",
    "smart_optimizer",
    "sparsity",
    "time_sync",
    "torch_distributed_zero_first",
]
