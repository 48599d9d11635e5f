"""Networks of ``.pt2`` and ``.torchscript`` files as a list of steps, each an operation of a closed list.

The loaders of torch run code of such files: they evaluate expressions, unpickle, compile source and call any function
of torch by its name. They are not used here. The files are read as data, and only operations that compute tensors from
tensors are run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.limits import BoundedShapes
from utils.core.errors import InputError

# Of aten. None reads or writes anything but its tensors, and none divides whole numbers, which can crash the process.
_OPERATIONS = """
abs adaptive_avg_pool2d adaptive_max_pool2d add addmm alias amax amin arange argmax argmin atan avg_pool2d baddbmm
batch_norm bmm broadcast_tensors broadcast_to cat ceil celu chunk clamp clamp_max clamp_min clone concat
constant_pad_nd contiguous conv1d conv2d conv_transpose2d _convolution cos cumsum detach div dropout elu eq exp expand
expand_as feature_dropout flatten flip floor full full_like ge gelu glu group_norm gt hardsigmoid hardswish hardtanh
im2col index_select instance_norm layer_norm le leaky_relu lift_fresh_copy linear linspace log log1p log_sigmoid
log_softmax logical_and logical_not logical_or lt masked_fill matmul max max_pool2d maximum mean meshgrid min minimum
mish mm movedim mul narrow ne neg new_full new_ones new_zeros ones ones_like pad permute pixel_shuffle
pixel_unshuffle pow prelu promote_types reciprocal reflection_pad2d relu relu6 repeat replication_pad2d reshape roll
rsqrt rsub scalar_tensor scaled_dot_product_attention select selu sigmoid sign silu sin slice softmax softplus split
split_with_sizes sqrt square squeeze stack std sub sum swapaxes t tanh tile to transpose tril triu type_as unbind
unflatten unfold unsqueeze upsample_bilinear2d upsample_nearest2d var view view_as where zeros zeros_like
add_ clamp_ copy_ elu_ fill_ hardsigmoid_ hardswish_ hardtanh_ leaky_relu_ mish_ mul_ relu_ relu6_ sigmoid_ silu_ sub_
zero_
"""
OPERATIONS = frozenset(_OPERATIONS.split())
FACTORIES = frozenset({"arange", "full", "linspace", "ones", "scalar_tensor", "zeros"})  # make tensors from nothing
# Words that operations take: how to pad, to interpolate, to order a grid.
WORDS = frozenset({"ij", "xy", "constant", "reflect", "replicate", "circular", "none", "tanh"})
MOST_STEPS = 50_000
_LARGEST = 1 << 62
_KNOWN_SHAPES = 1000


@dataclass(frozen=True)
class Value:
    """A reference to a result of a step, the input or a stored tensor."""

    name: str


@dataclass(frozen=True)
class Step:
    """One operation: ``results`` are the names of what it returns, several where that is a list."""

    call: Callable[..., Any]
    what: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[str, ...]
    listed: bool = False

    @property
    def takes(self) -> list[str]:
        """Names of the values that it needs."""
        return _names((self.args, tuple(self.kwargs.values())))


class Device:
    """The device of a new tensor: where the program runs, also if the file names another one."""


DEVICE = Device()


def _of_numbers(name: str) -> Callable[..., Any]:
    """Return a function of ``operator`` for plain numbers only: it could repeat lists, or divide integer tensors."""

    def compute(*numbers: Any) -> Any:
        if not all(isinstance(one, (int, float)) for one in numbers):
            raise InputError(f"refused, it computes {name} of something else than numbers")
        return getattr(operator, name)(*numbers)

    return compute


_ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "eq", "ne", "lt", "le", "gt", "ge")
NUMBER_OPERATIONS: Mapping[str, Callable[..., Any]] = {  # of sizes
    **{name: _of_numbers(name) for name in _ARITHMETIC},
    "getitem": operator.getitem,
}


class _AnyOverload:
    """An operation whose file does not name the overload: the first one that takes the arguments is used."""

    def __init__(self, forms: Sequence[Callable[..., Any]]) -> None:
        self.forms = list(forms)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        first: Exception | None = None
        for form in tuple(self.forms):
            try:
                result = form(*args, **kwargs)
            except (RuntimeError, TypeError) as error:  # also an error of the right overload
                first = first or error
                continue
            self.forms = [form, *(other for other in self.forms if other is not form)]
            return result
        raise first or InputError("refused, it uses an operation on something else than tensors")


def aten_operation(name: str, overload: str = "") -> Callable[..., Any]:
    """Return an operation of aten by its name, and by that of its overload where it is known.

    Raises:
        InputError: it is not in the list, or has no such overload that returns tensors.
    """
    if name not in OPERATIONS or not hasattr(torch.ops.aten, name):
        raise InputError(f"refused, it uses the operation {name[:100]!r}, which is not among those of detectors")
    packet = getattr(torch.ops.aten, name)
    allowed = {form: getattr(packet, form) for form in packet.overloads() if _computes(getattr(packet, form))}
    if overload and overload not in allowed:
        raise InputError(f"refused, it uses {name}.{overload[:100]}, which does not compute tensors from tensors")
    return allowed[overload] if overload else _AnyOverload(list(allowed.values()))


def _computes(form: Any) -> bool:
    """Return whether the results are new tensors: some overloads repeat lists, join texts or write into arguments."""
    kinds = {str(one.type) for one in form._schema.returns}
    return kinds in ({"Tensor"}, {"List[Tensor]"}) and all(one.name != "out" for one in form._schema.arguments)


class Program:
    """Steps in their order, with the stored tensors.

    Args:
        tensors: stored ones by name.
        given: the name of the input.
        steps: in the order they run.
        results: a ``Value``, or a list or tuple of them.

    Raises:
        InputError: too many steps, or a value used before it is computed.
    """

    def __init__(self, tensors: Mapping[str, Tensor], given: str, steps: Sequence[Step], results: Any) -> None:
        if len(steps) > MOST_STEPS:
            raise InputError(f"refused, it has more than {MOST_STEPS} steps")
        self.tensors, self.given, self.steps, self.results = dict(tensors), given, list(steps), results
        known, last = {given, *tensors}, dict[str, int]()
        for index, step in enumerate(steps):
            for name in step.takes:
                if name not in known:
                    raise InputError(f"refused, its step {step.what} takes {name[:100]!r} before it is computed")
                last[name] = index
            known.update(step.results)
        if not known.issuperset(_names(results)):
            raise InputError("refused, it returns what it never computes")
        done = last.keys() - {*_names(results), *tensors}
        self._done: list[list[str]] = [[] for _ in steps]  # by step: values that no later step needs
        for name in done:
            self._done[last[name]].append(name)
        self._fitting: set[tuple[Any, ...]] = set()  # shapes of images known to be within the limits

    def to(self, device: torch.device) -> Program:
        self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """[B, 3, H, W] -> the output of the network.

        Raises:
            InputError: it would take too much memory.
            RuntimeError, TypeError: of torch, if it cannot be run on these images.
        """
        key = (*images.shape, images.dtype)
        if key not in self._fitting:
            with BoundedShapes(images.numel()):
                meta = {name: tensor.to("meta") for name, tensor in self.tensors.items()}
                self._run(meta, images.to("meta"))
            if len(self._fitting) < _KNOWN_SHAPES:
                self._fitting.add(key)
        return self._run(self.tensors, images.clone())  # some steps work in place

    def _run(self, tensors: Mapping[str, Tensor], images: Tensor) -> Any:
        values: dict[str, Any] = {**tensors, self.given: images}
        for step, done in zip(self.steps, self._done):
            args = tuple(_filled(value, values, images.device) for value in step.args)
            kwargs = {key: _filled(value, values, images.device) for key, value in step.kwargs.items()}
            output = step.call(*args, **kwargs)
            if isinstance(output, int) and abs(output) > _LARGEST:
                raise InputError(f"refused, its step {step.what} gives the number {output:.3g}")
            parts = list(output) if step.listed else [output] if step.results else []
            values.update(zip(step.results, parts, strict=True))
            for name in done:
                del values[name]
        return _filled(self.results, values, images.device)


def _names(value: Any) -> list[str]:
    """Return the names of the values in nested lists and tuples."""
    if isinstance(value, Value):
        return [value.name]
    return [name for part in value for name in _names(part)] if isinstance(value, (list, tuple)) else []


def _filled(value: Any, values: Mapping[str, Any], device: torch.device) -> Any:
    if isinstance(value, Value):
        return values[value.name]
    if isinstance(value, Device):
        return device
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(part, values, device) for part in value)
    return value


def checked_literal(value: Any) -> Any:
    """Return a number, word or None that is allowed as an argument of an operation.

    Raises:
        InputError: a word that no operation of a detector takes.
    """
    if isinstance(value, str) and value not in WORDS:
        raise InputError(f"refused, it gives the word {value[:100]!r} to an operation")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"refused, it gives {type(value).__name__} to an operation")
