"""``--compile``: the model through torch.compile, taken only if it computes what the model computes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.yolo import Model
from utils.errors import first_line

LOG = logging.getLogger(__name__)
# Largest difference of a map, gradient or statistic, relative to the largest value of the same tensor. In float32 two
# orders of summation were seen to differ by 1e-4; what went wrong silently was wrong by 1e-2 and more.
TOLERANCE, TOLERANCE_AMP = 2e-3, 5e-2

Network = Callable[[Tensor], list[Tensor]]


class CompiledNetwork:
    """Runs full batches through the compiled model and all others, such as an epoch's last, through the plain one.

    Each new shape would be compiled anew, for minutes.

    Args:
        model: in training; its parameters, names and hooks are untouched.
        compiled: what torch.compile made of it.
        shape: of the pictures it was checked with.
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
    name, difference = _largest_difference(expected, found)
    limit = TOLERANCE_AMP if amp else TOLERANCE
    if not difference <= limit:  # not-a-number is no agreement either
        LOG.warning(
            "--compile: the compiled model computes something else: %s differs by %.2g of its largest value, and "
            "%g is allowed; going on without it", name, difference, limit,
        )  # fmt: skip
        return model
    LOG.info("compiled; the largest difference to the plain model is %.2g (%s)", difference, name)
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


def _largest_difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> tuple[str, float]:
    """Where two runs differ most, relative to the largest value there; infinite if one lacks a tensor."""
    if expected.keys() != found.keys():
        return f"the list of tensors ({min(expected.keys() ^ found.keys())} is missing)", float("inf")
    differences = {}
    for name, value in expected.items():
        largest = value.abs().max().clamp(min=1e-6)
        differences[name] = float((found[name] - value).abs().max() / largest)
    # Not-a-number first: it compares as neither larger nor smaller.
    name = max(differences, key=lambda key: (differences[key] != differences[key], differences[key]))
    return name, differences[name]
