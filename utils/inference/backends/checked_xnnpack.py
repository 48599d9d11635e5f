"""Graphs for XNNPACK inside of ExecuTorch programs: only operations of a closed list, each tensor as large as its data.

XNNPACK reads weights wherever a graph says they are and computes with the sizes it says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from utils.inference.backends.base import UnknownPartError
from utils.inference.backends.flatbuffer import DamagedError, Schema, read_flatbuffer

# Field orders by executorch/backends/xnnpack/serialization/runtime_schema.fbs of ExecuTorch 1.5.
_ONE = "input_id u32, output_id u32, flags u32"
_TWO = "input1_id u32, input2_id u32, output_id u32, flags u32"
_PADS = "padding_top u32, padding_right u32, padding_bottom u32, padding_left u32"
_NODES = {
    "Add": _TWO, "FullyConnected": "input1_id u32, filter_id u32, bias_id u32, output_id u32, flags u32",
    "Softmax": _ONE, "Sigmoid": _ONE, "StaticTranspose": f"num_dims u32, perm [u32], {_ONE}", "Clamp": _ONE,
    "Conv2d": "Conv", "Div": _TWO, "StaticResizeBilinear2D": f"new_height u32, new_width u32, {_ONE}",
    "StaticConstantPad": f"pre_paddings [u32], post_paddings [u32], padding_value f32, {_ONE}",
    "AvgPooling2d": "Pool", "Minimum": _TWO, "DepthwiseConv2d": "Conv", "MaxPooling2d": "Pool", "Multiply": _TWO,
    "Subtract": _TWO, "Floor": _ONE, "Convert": _ONE, "GlobalAvgPooling2d": _ONE,
    "StaticReshape": f"num_dims u32, new_shape [u32], {_ONE}", "ArgMaxPooling2d": "-", "SquareRoot": _ONE,
    "Ceiling": _ONE, "Hardswish": _ONE, "LeakyReLU": f"negative_slope f32, {_ONE}", "Maximum": _TWO, "Negate": _ONE,
    "Square": _ONE, "ELU": f"alpha f32, {_ONE}", "Abs": _ONE, "PReLU": "-", "Concatenate2": "Cat",
    "Concatenate3": "Cat", "Concatenate4": "Cat",
    "StaticSlice": f"num_dims u32, offsets [u32], sizes [u32], {_ONE}", "ScaledDotProductAttention": "-",
    "BatchMatrixMultiply": _TWO, "Concatenate5": "Cat", "ConvTranspose2d": "-", "ReciprocalSquareRoot": _ONE,
    "Log": _ONE, "Gelu": _ONE, "Tanh": _ONE, "Exp": _ONE, "Sin": _ONE, "Copy": _ONE, "Cos": _ONE,
}  # fmt: skip
_GROUPS = {
    "Conv": f"{_PADS}, kernel_height u32, kernel_width u32, subsampling_height u32, subsampling_width u32, "
    "dilation_height u32, dilation_width u32, group_input_channels u32, group_output_channels u32, groups u32, "
    "adjustment_height u32, adjustment_width u32, input1_id u32, filter_id u32, bias_id u32, output_id u32, flags u32",
    "Pool": f"{_PADS}, pooling_height u32, pooling_width u32, stride_height u32, stride_width u32, "
    f"dilation_height u32, dilation_width u32, {_ONE}",
    "Cat": "axis u32, input1_id u32, input2_id u32, input3_id u32, input4_id u32, output_id u32, flags u32, "
    "input5_id u32",
}
_TABLES = "\n".join(f"{name}: {_GROUPS.get(fields, fields)}" for name, fields in _NODES.items() if fields != "-")
_SCHEMA = Schema.of(f"""
{_TABLES}
union Node: {" ".join("-" if fields == "-" else name for name, fields in _NODES.items())}
union Value: Tensor -
Tensor: datatype i16, num_dims u32, dims [u32], constant_buffer_idx u32, external_id u32, flags u32, id_out u32,
    dq_datatype -
OutputMinMax: output_min f32, output_max f32
XNode: xnode_union Node, debug_handle u32, output_min_max OutputMinMax
XValue: xvalue_union Value
Offset: offset u64, size u64, named_key string
Buffer: storage [u8]
Graph: version string, xnodes [XNode], xvalues [XValue], num_externs u32, input_ids [u32], output_ids [u32],
    constant_buffer [Buffer], mem_buffer_sizes [u32], constant_data [Offset]
""")
_HEADER = struct.Struct("<4s4sHIIIQ")  # zeros, magic, its length, offset and size of the graph, and of the constants
_MAGIC, _IDENTIFIERS = b"XH00", (b"XN00", b"XN01")
_BYTES = {1: 4, 2: 2, 12: 4}  # of a value of float32, float16, int32
_NONE = 0xFFFFFFFF  # an id or offset that stands for none, with all bits set
_NO_OFFSET = 0xFFFFFFFFFFFFFFFF
_MOST_DIMS, _MOST_SIDE, _MOST_VALUES = 6, 1 << 24, 1 << 31


def check_xnnpack_graph(content: memoryview, named: Mapping[str, int]) -> None:
    """Check the data of a delegate of XNNPACK.

    Args:
        content: what the program stores for it.
        named: bytes of the data that the program stores under names.

    Raises:
        DamagedError, UnknownPartError: it is none, more than a closed list of operations, or its sizes do not fit.
    """
    if len(content) < _HEADER.size:
        raise DamagedError("a part for XNNPACK is too short")
    zeros, magic, length, start, size, after, stored = _HEADER.unpack_from(content)
    if zeros != bytes(4) or magic != _MAGIC or length != _HEADER.size:
        raise UnknownPartError("a part for XNNPACK has another header")
    if start + size > len(content) or after + stored > len(content) or after < start + size:
        raise DamagedError("a part for XNNPACK leads out of the file")
    graph = content[start : start + size]
    identifier = bytes(graph[4:8])
    if identifier not in _IDENTIFIERS:
        raise UnknownPartError("a part for XNNPACK is of another version")
    read = read_flatbuffer(graph, _SCHEMA, "Graph", identifier)
    if any(len(buffer["storage"]) for buffer in read["constant_buffer"]):
        raise UnknownPartError("a part for XNNPACK keeps constants in its graph")
    sizes = [_constant_size(entry, stored, named) for entry in read["constant_data"]]
    shapes = _shapes(read, sizes)
    for node in read["xnodes"]:
        if node["xnode_union"] is None:
            raise DamagedError("an operation of XNNPACK is missing")
        kind, numbers = node["xnode_union"]
        _check_node(kind, numbers, shapes)


def _constant_size(entry: Mapping[str, Any], stored: int, named: Mapping[str, int]) -> int:
    offset, size, name = entry["offset"] or 0, entry["size"] or 0, entry["named_key"]
    inside = size <= named.get(name, -1) if name else offset + size <= stored
    if not inside or bool(name) != (offset == _NO_OFFSET):
        raise DamagedError("a constant of XNNPACK leads out of the file")
    return int(size)


def _shapes(graph: Mapping[str, Any], sizes: list[int]) -> dict[int, list[int]]:
    """The sides of each value by its id."""
    externs, shapes = graph["num_externs"] or 0, {}
    for value in graph["xvalues"]:
        tensor: dict[str, Any] = (value["xvalue_union"] or ("", {}))[1]
        dims, number = tensor.get("dims", []), tensor.get("id_out") or 0
        count = math.prod(dims)
        if not tensor or len(dims) != (tensor["num_dims"] or 0) or len(dims) > _MOST_DIMS:
            raise DamagedError("a tensor of XNNPACK has no shape")
        if tensor["datatype"] not in _BYTES or max(dims, default=1) > _MOST_SIDE or count > _MOST_VALUES:
            raise UnknownPartError(f"a tensor of XNNPACK is of type {tensor['datatype']} and {dims}"[:200])
        external = tensor["external_id"] if tensor["external_id"] is not None else 0
        constant = tensor["constant_buffer_idx"] or 0
        if constant >= max(1, len(sizes)) or (external != _NONE and external >= externs) or number in shapes:
            raise DamagedError("a tensor of XNNPACK is none of the graph")
        if constant and sizes[constant] < count * _BYTES[tensor["datatype"]]:
            raise DamagedError("a constant of XNNPACK is shorter than its tensor")
        shapes[number] = dims
    if not set(graph["input_ids"]) | set(graph["output_ids"]) <= set(shapes):
        raise DamagedError("an input or output of XNNPACK is missing")
    return shapes


def _check_node(kind: str, node: Mapping[str, Any], shapes: Mapping[int, list[int]]) -> None:
    """Raise DamagedError: an operation takes a tensor that is not there, or weights that do not fit its numbers."""
    absent = {"bias_id": True, "input3_id": True, "input4_id": True, "input5_id": True}
    ids = {key: value or 0 for key, value in node.items() if key.endswith("_id")}
    if any(number not in shapes and not (number == _NONE and key in absent) for key, number in ids.items()):
        raise DamagedError(f"{kind} of XNNPACK takes a tensor that is not there")
    if kind in ("Conv2d", "DepthwiseConv2d"):
        groups, into, out = (node[key] or 0 for key in ("groups", "group_input_channels", "group_output_channels"))
        window = [node["kernel_height"] or 0, node["kernel_width"] or 0]
        filters = [1, *window, groups * out] if kind == "DepthwiseConv2d" else [groups * out, *window, into]
        if shapes[ids["filter_id"]] != filters or _bias(ids, shapes) not in (None, [groups * out]):
            raise DamagedError(f"{kind} of XNNPACK has weights of other sizes than it says")
    if kind == "FullyConnected":
        filters = shapes[ids["filter_id"]]
        if len(filters) != 2 or _bias(ids, shapes) not in (None, filters[:1], filters[1:]):
            raise DamagedError(f"{kind} of XNNPACK has weights of other sizes than it says")
    rank = len(shapes[ids["input_id"]]) if "pre_paddings" in node else node.get("num_dims") or 0
    lists = [
        node[key] for key in ("perm", "new_shape", "pre_paddings", "post_paddings", "offsets", "sizes") if key in node
    ]
    if any(len(given) != rank or rank > _MOST_DIMS for given in lists):
        raise DamagedError(f"{kind} of XNNPACK is for another number of axes")


def _bias(ids: Mapping[str, int], shapes: Mapping[int, list[int]]) -> list[int] | None:
    return None if ids["bias_id"] == _NONE else shapes[ids["bias_id"]]
