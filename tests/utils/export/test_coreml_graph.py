"""The graph in a Core ML package computes what the model computes.

Core ML runs on macOS only, so the graph is computed here by PyTorch, operator by operator. This compares the graph and
the weights in the file; rounding and faults of Core ML itself are not seen. Operators are those of
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.checkpoint import load_model
from utils.inference.backends import DetectMultiBackend

Exported = Callable[..., list[Any]]
TYPES = {"fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}
Operator = Callable[..., Any]


class PackageGraph(nn.Module):
    """The one function of a package: images -> boxes."""

    def __init__(self, package: Path) -> None:
        super().__init__()
        tools = pytest.importorskip("coremltools")
        from coremltools.converters.mil.frontend.milproto.load import load

        model = tools.models.MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
        (self.function,) = program.functions.values()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> boxes [B, N, no]."""
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
        return boxes


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


# --- packages ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("coremltools")
    monkeypatch.setattr("platform.system", lambda: "Linux")


@torch.no_grad()
def difference(package: Path, checkpoint: Path, images: Tensor) -> float:
    """Largest difference of a package's graph to PyTorch; boxes as a fraction of the longer side."""
    expected = load_model(checkpoint)[0](images)[0]
    scale = torch.tensor([1 / max(images.shape[2:])] * 4 + [1.0] * (expected.shape[2] - 4))
    return float(((PackageGraph(package)(images) - expected) * scale).abs().max())


@pytest.mark.parametrize(
    ("kind", "options", "sizes"),
    [
        ("static", {}, [(1, 64, 64)]),
        ("dynamic", {"dynamic": True}, [(1, 64, 64), (3, 32, 96), (8, 16, 16)]),
        ("dynamic", {"batch_size": 2}, [(2, 64, 64)]),
        ("dynamic", {"dynamic_form": "A1"}, [(1, 64, 64)]),
        ("dynamic", {"dynamic_form": "B"}, [(1, 64, 64)]),
        ("condconv", {}, [(1, 64, 64)]),
        ("odconv", {}, [(1, 64, 64)]),
        ("odconv", {"half": True}, [(1, 64, 64)]),
    ],
)
def test_the_graph_of_a_package_computes_what_pytorch_computes(
    exported: Exported, tiny: Callable[[str], Path], kind: str, options: dict[str, Any], sizes: list[tuple[int, ...]]
) -> None:
    row = exported(kind, include=("coreml",), **options)[1]
    assert row.made, row.note
    for batch, height, width in sizes:
        found = difference(row.path, tiny(kind), torch.rand(batch, 3, height, width))
        assert found < (1e-2 if "half" in options else 1e-4)


def test_a_graph_that_computes_something_else_is_seen(
    exported: Exported, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = exported("static", include=("coreml",))[1].path
    original = OPERATORS["sigmoid"]
    monkeypatch.setitem(OPERATORS, "sigmoid", lambda x: original(x) * 1.01)
    assert difference(package, tiny("static"), torch.rand(1, 3, 64, 64)) > 1e-3


def test_where_core_ml_runs_the_file_is_run_like_any_other(
    exported: Exported, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph in the file, computed by PyTorch, stands in for Core ML."""
    tools = pytest.importorskip("coremltools")

    def predict(self: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"boxes": PackageGraph(Path(self.package_path))(torch.from_numpy(given["images"])).numpy()}

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(tools.models.MLModel, "predict", predict)
    row = exported("dynamic", include=("coreml",))[1]
    assert row.made, row.note
    assert row.worst < 1e-4 and row.ms > 0
    model = DetectMultiBackend(row.path)
    assert (model.coreml, model.names, model.fixed_hw) == (True, ["ant", "bee", "甲虫"], (64, 64))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), load_model(tiny("dynamic"))[0](images)[0], rtol=1e-4, atol=1e-3)


def test_operators_of_the_graph_compute_what_they_are_documented_to() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    weight = torch.rand(4, 2, 3, 3)
    for stride, kind in ((1, "same"), (2, "same_lower")):
        y = OPERATORS["conv"](x, weight, strides=(stride, stride), pad_type=kind)
        assert y.shape == (1, 4, -(-3 // stride), 4 // stride)
    custom = OPERATORS["conv"](x, weight, pad_type="custom", pad=(1, 1, 1, 1))
    torch.testing.assert_close(custom, F.conv2d(x, weight, padding=1))
    torch.testing.assert_close(OPERATORS["conv"](x, weight, pad_type="same"), custom)
    pooled = OPERATORS["max_pool"](-x, (3, 3), (1, 1), "custom", (1, 1, 1, 1))
    torch.testing.assert_close(pooled, F.max_pool2d(-x, 3, 1, 1))
    part = OPERATORS["slice_by_index"](
        x, (0, 1, 0, 9), (1, 9, 2, 0), (1, 1, 1, -2), [True, False, False, True], [True] + [False] * 2 + [True],
        [False, True, False, False],
    )  # fmt: skip
    assert torch.equal(part, x[:, 1, 0:2].flip(-1)[..., ::2])
    assert OPERATORS["expand_dims"](x, (0, -1)).shape == (1, 1, 2, 3, 4, 1)
    assert OPERATORS["reshape"](x, (0, -1, 4)).shape == (1, 6, 4)
    assert torch.equal(OPERATORS["gather"](x, torch.tensor([1, 0]), axis=1), x[:, [1, 0]])
    assert [len(part) for part in OPERATORS["split"](x[0, 0], 0, split_sizes=(1, 2))] == [1, 2]
    assert torch.equal(OPERATORS["concat"]([torch.tensor(1), torch.tensor([2, 3])], 0), torch.tensor([1, 2, 3]))
    torch.testing.assert_close(OPERATORS["matmul"](x, x, transpose_y=True), x @ x.mT)
    assert torch.equal(OPERATORS["reduce_mean"](x, (2, 3), True), x.mean((2, 3), keepdim=True))
