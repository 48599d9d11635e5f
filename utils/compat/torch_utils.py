"""Names of ``utils.torch_utils`` of YOLOv5 v6.1 that no other module has."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.utils import prune as pruning

from models.summary import count_macs, summarize
from models.tta import PADDING, View
from utils.config.hyp import Hyp
from utils.core import device as devices
from utils.core.errors import InputError
from utils.core.timing import synchronized_seconds
from utils.training import ema
from utils.training.optim import build_optimizer

LOG = logging.getLogger(__name__)


def select_device(
    device: str | torch.device | int | None = "", batch_size: int | None = 0, newline: bool = True
) -> torch.device:
    """Return the device for "cpu", "0", "0,1", or "" for the first GPU if there is one.

    Raises:
        InputError: not a device, a missing GPU, or a batch size that is not a multiple of the number of GPUs.
    """
    wanted = "" if device is None else str(device)
    gpus = wanted.count(",") + 1
    if batch_size and batch_size > 0 and batch_size % gpus:
        raise InputError(f"batch size {batch_size} is not a multiple of the {gpus} GPUs of device '{device}'")
    return devices.select_device("0" if wanted == "cuda" else wanted)


def time_sync() -> float:
    """Return the seconds of a clock for measuring durations, read after the queue of the GPU is finished."""
    return synchronized_seconds(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def is_parallel(model: nn.Module) -> bool:
    """Whether a model is in a DataParallel or DistributedDataParallel wrapper."""
    return isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))


def de_parallel(model: nn.Module) -> nn.Module:
    """Return the model inside such a wrapper, else the model itself."""
    return model.module if is_parallel(model) else model  # type: ignore[return-value]


@contextlib.contextmanager
def torch_distributed_zero_first(local_rank: int) -> Iterator[None]:
    """Run the body on rank 0 first, while the other ranks wait; -1 is a single process."""
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
    """Scale images [B, C, H, W] by ``ratio``, then pad them with grey at the right and bottom.

    Args:
        same_shape: pad to the original size, not to the next multiples of ``gs``.
        gs: largest stride of the model.
    """
    scaled = View(ratio).of(img, gs)
    if not same_shape:
        return scaled
    missing_w, missing_h = img.shape[3] - scaled.shape[3], img.shape[2] - scaled.shape[2]
    return F.pad(scaled, (0, missing_w, 0, missing_h), value=PADDING)  # negative padding crops


def copy_attr(a: Any, b: Any, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
    """Copy the public attributes of ``b`` to ``a``: all, or those in ``include``, but not those in ``exclude``."""
    included, excluded = set(include), set(exclude)
    for name, value in vars(b).items():
        if not name.startswith("_") and name not in excluded and (not included or name in included):
            setattr(a, name, value)


def sparsity(model: nn.Module) -> float:
    """Return the share of the parameters that are 0."""
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    return sum(int((p == 0).sum()) for p in parameters) / total if total else 0.0


def prune(model: nn.Module, amount: float = 0.3) -> None:
    """Set the share ``amount`` of each convolution's weights to 0, in place: those with the smallest absolute value."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            pruning.l1_unstructured(layer, "weight", amount)
            pruning.remove(layer, "weight")  # makes the zeros permanent
    LOG.info("pruned: %.3g of the parameters are 0", sparsity(model))


def profile(
    input: Tensor | Sequence[Tensor],
    ops: nn.Module | Callable[..., Any] | Sequence[Any],
    n: int = 10,
    device: str | torch.device | None = None,
) -> list[list[Any] | None]:
    """Measure time and size of layers.

    Args:
        input: one or several tensors.
        ops: one or several modules or functions.
        n: repetitions, of which the mean is returned.
        device: default: the first GPU, else the CPU.

    Returns:
        For each input and operation: parameters, GFLOPs (0 for a function), GPU memory in GB, milliseconds forward and
        backward (nan without a gradient), shape of input and output; None for an operation that failed, which is
        logged.
    """
    chosen = torch.device(device) if device is not None else select_device()
    inputs = [input] if isinstance(input, Tensor) else list(input)
    every: list[Any] = list(ops) if isinstance(ops, (list, tuple)) else [ops]
    row = "%12s%10s%10s%12s%12s%22s%22s"
    LOG.info(row, "parameters", "GFLOPs", "GB", "forward ms", "backward ms", "in", "out")
    results: list[list[Any] | None] = []
    for x in inputs:
        given = x.to(chosen).detach().requires_grad_()
        for op in every:
            try:
                measured = _measure(op.to(chosen) if isinstance(op, nn.Module) else op, given, n)
            except Exception as error:  # the other operations are still measured
                LOG.error("%s: %s", type(op).__name__, error)
                results.append(None)
                continue
            parameters, gflops, memory, forward, backward, *shapes = measured
            LOG.info(row, parameters, f"{gflops:.4g}", f"{memory:.3f}", f"{forward:.4g}", f"{backward:.4g}", *shapes)
            results.append(measured)
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


class ModelEMA(ema.ModelEMA):
    """The EMA of the weights; the attribute ``ema`` is the EMA model."""

    @property
    def ema(self) -> nn.Module:
        return self.model

    def decay(self, x: int) -> float:
        """Return the decay of update number ``x``."""
        return self.decay_at(x)

    def update_attr(
        self, model: nn.Module, include: Iterable[str] = (), exclude: Iterable[str] = ("process_group", "reducer")
    ) -> None:
        """Copy attributes of ``model``, such as ``names``, to the EMA model."""
        copy_attr(self.model, model, include, exclude)


def smart_inference_mode() -> Any:
    """Return a decorator for functions that need no gradients, as in v6.2."""
    return torch.inference_mode()


def smart_optimizer(
    model: nn.Module, name: str = "Adam", lr: float = 0.001, momentum: float = 0.9, decay: float = 1e-5
) -> torch.optim.Optimizer:
    """As :func:`utils.training.optim.build_optimizer`, with the defaults of v6.2."""
    return build_optimizer(model, name, Hyp(lr0=lr, momentum=momentum, weight_decay=decay))
