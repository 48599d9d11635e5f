"""Limits of models that an untrusted file describes, checked before memory is taken or much time is spent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from utils.core.errors import InputError

MOST_PARAMETERS = 1_000_000_000  # yolov5x6 with dynamic layers throughout has 600 million
MOST_MODULES = 10_000
MOST_REPEATS = 1_000  # of a row of a model yaml
MOST_PIECES = 10_000  # that one tensor is cut into
LARGEST = 65_536  # number in a model yaml: channels, classes, sides of kernels
MOST_MULTIPLE = 100  # of depth and width
# Numbers in one result of a layer and in all of them, per number of the images; yolov5x6 has 30 and 2000.
_EACH, _ALL, _AT_LEAST = 512, 25_000, 1 << 26


class LimitError(InputError):
    """A model that would take more memory or time than any detector needs."""


@contextmanager
def bounded_construction(source: str, most: int = MOST_PARAMETERS) -> Iterator[None]:
    """Limit the parameters and modules that this thread makes in the ``with`` block.

    Args:
        source: name of the model for messages.
        most: parameters.

    Raises:
        LimitError: at the first that is too much, before it is filled with numbers.
    """
    thread, parameters, modules = threading.get_ident(), 0, 0

    def count(_: nn.Module, name: str, part: Tensor | nn.Module | None) -> None:
        nonlocal parameters, modules
        if threading.get_ident() != thread or part is None:
            return
        if isinstance(part, Tensor):
            parameters += part.numel()
        else:
            modules += 1
        if parameters > most or modules > MOST_MODULES:
            what = f"{most} parameters" if parameters > most else f"{MOST_MODULES} parts"
            raise LimitError(f"{source}: the model would have more than {what}")

    with ExitStack() as removed_at_the_end:
        for kind in ("parameter", "buffer", "module"):
            handle = getattr(hooks, f"register_module_{kind}_registration_hook")(count)
            removed_at_the_end.callback(handle.remove)
        yield


class BoundedShapes(TorchDispatchMode):
    """Limit the size of the results of operations in the ``with`` block, in proportion to the images.

    For tensors on the device ``meta``, which have shapes and take no memory.

    Args:
        images: number of values in the images.

    Raises:
        LimitError: a result, or all of them together, would be too large.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.each, self.left = max(_AT_LEAST, _EACH * images), max(_AT_LEAST, _ALL * images)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        pieces = self._pieces(func, *args)
        if pieces > MOST_PIECES:
            raise LimitError(f"a feature map would be cut into {pieces} pieces")
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(result, Tensor):
                self.left -= result.numel()
                if result.numel() > self.each or self.left < 0:
                    operation = func.name().partition("::")[2]
                    raise LimitError(f"a result {list(result.shape)} of {operation} would take too much memory")
        return results

    @staticmethod
    def _pieces(func: Any, *args: Any) -> int:
        """Into how many tensors an operation cuts one, at most."""
        if func is torch.ops.aten.unbind.int:
            return max(args[0].shape, default=0)
        return max(args[0].shape, default=0) // max(args[1], 1) if func is torch.ops.aten.split.Tensor else 0


_WITHIN_LIMITS: set[str] = set()  # descriptions of models that were checked


def check_limits(description: str, source: str, build: Callable[[], nn.Module], images: Tensor) -> None:
    """Build a model and run it, on shapes alone, once for each description.

    Raises:
        LimitError: it would need too much memory.
    """
    if description in _WITHIN_LIMITS:
        return
    reached: list[str] = []

    def record_layer(layer: Any, _: Any) -> None:
        reached.append(f"layer {layer.i} ({layer.type}): ")

    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device("meta"), bounded_construction(source):
            model = build()
            for layer in (layer for layer in model.modules() if isinstance(getattr(layer, "type", None), str)):
                layer.register_forward_pre_hook(record_layer)
            with BoundedShapes(images.numel()):
                model(images.to("meta"))
    except LimitError as error:
        problem = str(error).removeprefix(f"{source}: ")
        cure = "check its arguments: is the second the kernel?" if reached else "check its rows"
        raise LimitError(f"{source}: {''.join(reached[-1:])}{problem}; {cure}") from error
    except Exception:  # a layer that needs real numbers, or a mistake that the real construction reports
        return
    _WITHIN_LIMITS.add(description)
