"""The graph of a Core ML package computed by PyTorch, so that a conversion can be checked where Core ML does not run.

It tells whether the graph and the weights in the file are those of the model; rounding and faults of Core ML itself are
not seen. Operators by https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TYPES = {"fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}
Operator = Callable[..., Any]


class MilGraph(nn.Module):
    """The one function of a package: images -> (boxes, None), as a model gives them.

    Raises:
        NotImplementedError: an operator that is not among ``OPERATORS``.
    """

    def __init__(self, package: Path) -> None:
        super().__init__()
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.models import MLModel

        model = MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
        (self.function,) = program.functions.values()
        unknown = sorted({op.op_type for op in self.function.operations} - OPERATORS.keys() - {"const"})
        if unknown:
            raise NotImplementedError(f"it has {', '.join(unknown)}")

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """[B, 3, H, W] -> (boxes [B, N, no], None)."""
        (taken,) = self.function.inputs.values()
        values: dict[str, Any] = {taken.name: images}
        for op in self.function.operations:
            if op.op_type == "const":
                values[op.outputs[0].name] = constant(op.outputs[0].val)
                continue
            given = {key: value_of(var, values) for key, var in op.inputs.items() if var is not None}
            found = OPERATORS[op.op_type](**given)
            for var, value in zip(op.outputs, found if isinstance(found, tuple) else (found,), strict=True):
                values[var.name] = value
        boxes: Tensor = values[self.function.outputs[0].name]
        return boxes, None


def constant(value: Any) -> Any:
    """Text and truth values as they are, everything else as a tensor."""
    if isinstance(value, (str, bool, np.bool_)):
        return value
    return torch.from_numpy(np.array(value))


def value_of(var: Any, values: Mapping[str, Any]) -> Any:
    """What an input stands for: one value, or several."""
    if isinstance(var, (list, tuple)):
        return [value_of(one, values) for one in var]
    return values[var.name] if var.name in values else constant(var.val)


def numbers(value: Any) -> list[int]:
    return [int(number) for number in value]


def padded(x: Tensor, kind: str, pad: Any, window: list[int], strides: list[int], fill: float = 0.0) -> Tensor:
    """``x`` with what a convolution or a pooling adds around it.

    Args:
        pad: begin and end of each spatial axis, for the kind ``custom``.
        window, strides: of the two spatial axes, for the kind ``same``, which makes ceil(side / stride) of a side.
    """
    if kind == "valid":
        return x
    sides = [0, 0, 0, 0] if pad is None else numbers(pad)
    if kind != "custom":
        total = [
            max(0, (-(-side // stride) - 1) * stride + reach - side)
            for side, stride, reach in zip(x.shape[2:], strides, window)
        ]
        less = [both // 2 for both in total]
        more = [both - half for both, half in zip(total, less)]
        first, last = (more, less) if kind == "same_lower" else (less, more)
        sides = [first[0], last[0], first[1], last[1]]
    top, bottom, left, right = sides
    return F.pad(x, (left, right, top, bottom), value=fill)


def conv(
    x: Tensor, weight: Tensor, strides: Any = (1, 1), pad_type: str = "valid", pad: Any = None,
    dilations: Any = (1, 1), groups: Any = 1, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    reach = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], numbers(dilations))]
    x = padded(x, pad_type, pad, reach, numbers(strides))
    return F.conv2d(x, weight, bias, numbers(strides), 0, numbers(dilations), int(groups))


def max_pool(
    x: Tensor,
    kernel_sizes: Any,
    strides: Any = (1, 1),
    pad_type: str = "valid",
    pad: Any = None,
    ceil_mode: Any = False,
) -> Tensor:
    x = padded(x, pad_type, pad, numbers(kernel_sizes), numbers(strides), fill=-torch.inf)
    return F.max_pool2d(x, numbers(kernel_sizes), numbers(strides), ceil_mode=bool(ceil_mode))


def matmul(x: Tensor, y: Tensor, transpose_x: Any = False, transpose_y: Any = False) -> Tensor:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def enlarge(x: Tensor, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Tensor:
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)), mode="nearest")


def reshape(x: Tensor, shape: Any) -> Tensor:
    """A side of 0 stands for that of ``x``."""
    return x.reshape([side or x.shape[axis] for axis, side in enumerate(numbers(shape))])


def squeeze(x: Tensor, axes: Any = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(numbers(axes))


def expand_dims(x: Tensor, axes: Any) -> Tensor:
    shape, rank = list(x.shape), x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in numbers(axes)):
        shape.insert(axis, 1)
    return x.reshape(shape)


def slice_by_index(
    x: Tensor, begin: Any, end: Any, stride: Any = None, begin_mask: Any = None, end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Tensor:  # fmt: skip
    """A part of ``x``; masks say where a bound is none, and which axes are a single place and vanish."""
    rank = x.dim()
    steps = [1] * rank if stride is None else numbers(stride)
    masks = [
        [False] * rank if mask is None else [bool(one) for one in mask] for mask in (begin_mask, end_mask, squeeze_mask)
    ]
    places: list[Any] = []
    for axis, (first, last, step) in enumerate(zip(numbers(begin), numbers(end), steps)):
        if masks[2][axis]:
            places.append(first)
        else:
            places.append(slice(None if masks[0][axis] else first, None if masks[1][axis] else last, step))
    return torch.as_tensor(x.numpy()[tuple(places)].copy())  # numpy takes negative steps too


def split(x: Tensor, axis: Any, num_splits: Any = None, split_sizes: Any = None) -> tuple[Tensor, ...]:
    sizes = [x.shape[int(axis)] // int(num_splits)] * int(num_splits) if split_sizes is None else numbers(split_sizes)
    return x.split(sizes, dim=int(axis))


def joined(values: list[Tensor], axis: Any, interleave: Any = False) -> Tensor:
    if interleave:
        raise NotImplementedError("it has a concat with interleave")
    kind = torch.result_type(values[0], values[-1])
    return torch.cat(
        [value.to(kind).reshape(-1) if value.dim() == 0 else value.to(kind) for value in values], int(axis)
    )


def gather(x: Tensor, indices: Tensor, axis: Any = 0, batch_dims: Any = 0, validate_indices: Any = False) -> Tensor:
    if int(batch_dims):
        raise NotImplementedError("it has a gather in batches")
    return torch.as_tensor(np.take(x.numpy(), np.asarray(indices), axis=int(axis)))


def reduced(function: Operator) -> Operator:
    def reduce(x: Tensor, axes: Any = None, keep_dims: Any = False) -> Any:
        over = list(range(x.dim())) if axes is None else numbers(axes)
        return function(x, dim=over, keepdim=bool(keep_dims))

    return reduce


def two(function: Operator) -> Operator:
    return lambda x, y: function(x, y)


OPERATORS: dict[str, Operator] = {
    "conv": conv, "max_pool": max_pool, "matmul": matmul, "upsample_nearest_neighbor": enlarge,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "reshape": reshape, "squeeze": squeeze, "expand_dims": expand_dims, "slice_by_index": slice_by_index,
    "transpose": lambda x, perm: x.permute(numbers(perm)),
    "tile": lambda x, reps: x.tile(numbers(reps)),
    "split": split, "concat": joined, "stack": lambda values, axis: torch.stack(values, int(axis)), "gather": gather,
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "range_1d": lambda start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=end.dtype),
    "cast": lambda x, dtype: x.to(TYPES[dtype]),
    "identity": lambda x: x,
    "reduce_mean": reduced(torch.mean), "reduce_sum": reduced(torch.sum),
    "softmax": lambda x, axis=-1: x.softmax(int(axis)),
    "sigmoid": lambda x: x.sigmoid(), "relu": lambda x: x.relu(), "silu": lambda x: F.silu(x),
    "tanh": lambda x: x.tanh(), "exp": lambda x: x.exp(), "square": lambda x: x * x, "sqrt": lambda x: x.sqrt(),
    "gelu": lambda x, mode="EXACT": F.gelu(x, approximate="none" if mode == "EXACT" else "tanh"),
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, float(alpha)),
    "add": two(torch.add), "sub": two(torch.sub), "mul": two(torch.mul), "real_div": two(torch.true_divide),
    "floor_div": two(torch.floor_divide), "pow": two(torch.pow),
    "maximum": two(torch.maximum), "minimum": two(torch.minimum),
    "batch_norm": lambda x, mean, variance, gamma=None, beta=None, epsilon=1e-5: F.batch_norm(
        x, mean, variance, gamma, beta, eps=float(epsilon)
    ),
    "layer_norm": lambda x, axes, gamma=None, beta=None, epsilon=1e-5: F.layer_norm(
        x, [x.shape[axis] for axis in numbers(axes)], gamma, beta, float(epsilon)
    ),
}  # fmt: skip
