"""``--compile``: the model through torch.compile, used only if it computes what the model computes."""

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
# Largest difference of a tensor, relative to its largest value. In float32 two orders of summation were measured to
# differ by 2e-5 in a prediction and, where large terms cancel, by 6e-4 in a gradient; wrong results by over 2e-2.
PREDICTION_TOLERANCE, GRADIENT_TOLERANCE, AMP_TOLERANCE = 1e-3, 5e-3, 5e-2
LARGEST_TOLERANCE = 2e-2  # however large the model's own rounding is

Network = Callable[[Tensor], list[Tensor]]


class CompiledNetwork:
    """Runs full batches through the compiled model and all others, such as an epoch's last, through the plain one.

    Each new shape would be compiled again, for minutes.

    Args:
        model: in training; its parameters, names and hooks do not change.
        compiled: result of torch.compile.
        shape: of the images it was checked with.
    """

    def __init__(self, model: Model, compiled: Network, shape: torch.Size) -> None:
        self.model, self.compiled, self.shape = model, compiled, shape

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the predictions [B, na, ny, nx, nc+5] of each level."""
        network = self.compiled if images.shape == self.shape else self.model
        return network(images)


def compile_network(model: Model, images: Tensor, amp: bool, backend: str = "inductor") -> Network:
    """Compile the model, unless it cannot be compiled or the result differs; then return it, with a warning.

    Both run forward and backward on ``images``, and predictions, gradients and batch norm statistics are compared; the
    model, its gradients and torch's random numbers do not change. Shapes are fixed: with ``dynamic=True`` torch 2.14
    gives wrong numbers on a CPU for dynamic convolution, without a message.

    Args:
        model: in training mode, as it will be trained.
        images: [B, C, H, W] of a full batch, in the memory format of training.
        amp: mixed precision.
        backend: of torch.compile.
    """
    LOG.info("compiling the model for batches of %s; this takes a while", " x ".join(map(str, images.shape)))
    gradients = [p.grad for p in model.parameters()]
    try:
        expected = _run(model, model, images, amp)
        network: Network = torch.compile(model, dynamic=False, backend=backend)
        actual = _run(model, network, images, amp)
    except Exception as error:  # a missing C++ compiler, an unknown operation: any kind of exception
        LOG.warning("--compile: torch.compile failed (%s); training without it", first_line(error))
        return model
    finally:
        for parameter, gradient in zip(model.parameters(), gradients):
            parameter.grad = gradient
    name, difference, limit = _largest_difference(expected, actual, amp)
    if not difference <= limit and not amp:  # how much of it is rounding, which the model may amplify?
        twin = copy.deepcopy(model).double()
        exact = _run(twin, twin, images.double(), amp)
        name, difference, limit = _largest_difference(expected, actual, amp, exact)
    if not difference <= limit:  # also for not-a-number
        LOG.warning(
            f"--compile: the compiled model computes something else: {name} differs by {difference:.2g} of its largest "
            f"value, and {limit:g} is allowed; training without it"
        )
        return model
    LOG.info("compiled; it agrees with the plain model to %.2g (%s)", difference, name)
    return CompiledNetwork(model, network, images.shape)


def _run(model: Model, network: Callable[[Tensor], Any], images: Tensor, amp: bool) -> dict[str, Tensor]:
    """Return predictions, gradients and buffers after one batch; buffers and random numbers are restored."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for parameter in model.parameters():
        parameter.grad = None
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        with torch.autocast(images.device.type, enabled=amp):
            predictions = network(images)
        torch.stack([level.float().square().mean() for level in predictions]).sum().backward()
    results = {f"prediction {index}": level.detach().float() for index, level in enumerate(predictions)}
    results |= {f"the gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    results |= {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return results


def _largest_difference(
    expected: dict[str, Tensor], actual: dict[str, Tensor], amp: bool, exact: dict[str, Tensor] | None = None
) -> tuple[str, float, float]:
    """Return the tensor in which two runs differ most relative to its limit, the difference, and the limit.

    Args:
        expected, actual: results of the runs by name.
        amp: mixed precision.
        exact: results in float64, with which the model's own rounding is measured.
    """
    if expected.keys() != actual.keys():
        missing = min(expected.keys() ^ actual.keys())
        return f"the list of tensors ({missing} is in one only)", float("inf"), 0.0
    differences: list[tuple[str, float, float]] = []
    for name, value in expected.items():
        of_kind = PREDICTION_TOLERANCE if name.startswith("prediction ") else GRADIENT_TOLERANCE
        limit = AMP_TOLERANCE if amp else of_kind
        largest = value.abs().max().clamp(min=1e-6)
        if exact is not None:
            rounding = float((exact[name] - value).abs().max() / largest)
            limit = tolerance(rounding, limit, max(limit, LARGEST_TOLERANCE))
        differences.append((name, float((actual[name] - value).abs().max() / largest), limit))
    # Not-a-number first: it compares as neither larger nor smaller.
    return max(differences, key=lambda each: (each[1] != each[1], each[1] / each[2]))
