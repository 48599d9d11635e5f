"""``--compile``: the model through torch.compile, taken only if it computes what the model computes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.yolo import Model
from utils.core.errors import first_line
from utils.core.rounding import tolerance

LOG = logging.getLogger(__name__)
# Largest difference of a tensor, relative to its largest value. In float32 two orders of summation were seen to differ
# by 2e-5 in a map and, where large terms cancel, 6e-4 in a gradient; what went wrong silently was wrong by over 2e-2.
MAP_TOLERANCE, GRADIENT_TOLERANCE, AMP_TOLERANCE = 1e-3, 5e-3, 5e-2
CAP = 2e-2  # more is not excused by the model's own rounding

Network = Callable[[Tensor], list[Tensor]]


class CompiledNetwork:
    """Runs full batches through the compiled model and all others, such as an epoch's last, through the plain one.

    Each new shape would be compiled anew, for minutes.

    Args:
        model: in training; its parameters, names and hooks are untouched.
        compiled: what torch.compile made of it.
        shape: of the images it was checked with.
    """

    def __init__(self, model: Model, compiled: Network, shape: torch.Size) -> None:
        self.model, self.compiled, self.shape = model, compiled, shape

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Maps [B, na, ny, nx, nc+5] of each level."""
        network = self.compiled if images.shape == self.shape else self.model
        return network(images)


def compile_network(model: Model, images: Tensor, amp: bool, backend: str = "inductor") -> Network:
    """The compiled model, or the model itself, with a warning, if it cannot be compiled or comes out different.

    Both run forward and backward on ``images``, and maps, gradients and batch norm statistics are compared; the model,
    its gradients and torch's random numbers are left as they were. Shapes are fixed: with ``dynamic=True`` torch 2.14
    gives wrong numbers on a CPU for dynamic convolution, without a message.

    Args:
        model: in training mode, as it will be trained.
        images: [B, C, H, W] of a full batch, in the layout of training.
        amp: mixed precision.
    """
    LOG.info("compiling the model for batches of %s; this takes a while", " x ".join(map(str, images.shape)))
    kept = [p.grad for p in model.parameters()]
    try:
        expected = _run(model, model, images, amp)
        network: Network = torch.compile(model, dynamic=False, backend=backend)
        found = _run(model, network, images, amp)
    except Exception as error:  # a missing C++ compiler, an operation it does not know: any kind of exception
        LOG.warning("--compile: torch.compile failed (%s); going on without it", first_line(error))
        return model
    finally:
        for parameter, gradient in zip(model.parameters(), kept):
            parameter.grad = gradient
    name, difference, limit = _worst(expected, found, amp)
    if not difference <= limit and not amp:  # how much is rounding, in a model that magnifies it?
        twin = copy.deepcopy(model).double()
        name, difference, limit = _worst(expected, found, amp, _run(twin, twin, images.double(), amp))
    if not difference <= limit:  # not-a-number is no agreement either
        LOG.warning(
            "--compile: the compiled model computes something else: %s differs by %.2g of its largest value, and "
            "%g is allowed; going on without it", name, difference, limit,
        )  # fmt: skip
        return model
    LOG.info("compiled; it agrees with the plain model to %.2g (%s)", difference, name)
    return CompiledNetwork(model, network, images.shape)


def _run(model: Model, network: Callable[[Tensor], Any], images: Tensor, amp: bool) -> dict[str, Tensor]:
    """Maps, gradients and buffers after one batch; buffers and random numbers are put back."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for parameter in model.parameters():
        parameter.grad = None
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        with torch.autocast(images.device.type, enabled=amp):
            maps = network(images)
        torch.stack([level.float().square().mean() for level in maps]).sum().backward()
    results = {f"map {index}": level.detach().float() for index, level in enumerate(maps)}
    results |= {f"the gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    results |= {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return results


def _worst(
    expected: dict[str, Tensor], found: dict[str, Tensor], amp: bool, exact: dict[str, Tensor] | None = None
) -> tuple[str, float, float]:
    """Where two runs differ most for what is allowed there, by how much, and that limit.

    Args:
        exact: a run in float64, by which the model's own rounding is measured.
    """
    if expected.keys() != found.keys():
        missing = min(expected.keys() ^ found.keys())
        return f"the list of tensors ({missing} is in one only)", float("inf"), 0.0
    judged: list[tuple[str, float, float]] = []
    for name, value in expected.items():
        limit = AMP_TOLERANCE if amp else MAP_TOLERANCE if name.startswith("map ") else GRADIENT_TOLERANCE
        largest = value.abs().max().clamp(min=1e-6)
        if exact is not None:
            limit = tolerance(float((exact[name] - value).abs().max() / largest), limit, max(limit, CAP))
        judged.append((name, float((found[name] - value).abs().max() / largest), limit))
    # Not-a-number first: it compares as neither larger nor smaller.
    return max(judged, key=lambda each: (each[1] != each[1], each[1] / each[2]))
