"""ExecuTorch programs (``.pte``): only operators of a closed list, each value within the memory that the file declares.

Such a program is a list of calls of operators, of parts for other libraries (of which only XNNPACK is accepted), and of
jumps, which could go round for ever and are refused.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.inference.backends.base import UnknownPartError
from utils.inference.backends.checked_xnnpack import check_xnnpack_graph
from utils.inference.backends.flatbuffer import DamagedError, Schema, read_flatbuffer

_XNNPACK, FORWARD = "XnnpackBackend", "forward"
# Operators that compute tensors from tensors; those of the second list compute sizes and shapes.
_ATEN = """
_log_softmax _native_batch_norm_legit_no_training _softmax _to_copy abs adaptive_avg_pool2d add addmm amax amin any
arange argmax argmin avg_pool2d bitwise_and bitwise_not bitwise_or bmm cat ceil clamp clone constant_pad_nd convolution
copy cos div elu empty eq erf exp expand_copy fill flip floor floor_divide fmod full full_like ge gelu glu gt hardtanh
index index_select isinf isnan le leaky_relu lift_fresh_copy linear log logical_and logical_not logical_or lt
masked_fill max max_pool2d_with_indices maximum mean min minimum mm mul native_batch_norm native_group_norm
native_layer_norm ne neg ones permute_copy pixel_shuffle pixel_unshuffle pow prod reciprocal relu remainder repeat round
rsqrt rsub scalar_tensor select_copy sigmoid sign sin slice_copy split_copy split_with_sizes_copy sqrt squeeze_copy
stack sub sum t_copy tan tanh topk transpose_copy tril triu trunc unbind_copy unsqueeze_copy upsample_bilinear2d
upsample_nearest2d var view_copy where zeros _adaptive_avg_pool2d hardsigmoid hardswish silu linear
"""
_OTHERS = """
dim_order_ops::_to_dim_order_copy dim_order_ops::_clone_dim_order dim_order_ops::_empty_dim_order
executorch_prim::add executorch_prim::ceil executorch_prim::eq executorch_prim::et_view executorch_prim::floordiv
executorch_prim::ge executorch_prim::gt executorch_prim::le executorch_prim::lt executorch_prim::mod
executorch_prim::mul executorch_prim::neg executorch_prim::round executorch_prim::sub executorch_prim::sym_float
executorch_prim::sym_max executorch_prim::sym_min executorch_prim::truediv executorch_prim::trunc aten::sym_size
aten::sym_numel
"""
EXECUTORCH_OPERATORS = frozenset(f"aten::{name}" for name in _ATEN.split()) | frozenset(_OTHERS.split())
# Field orders by schema/program.fbs of ExecuTorch 1.5.
_SCHEMA = Schema.of("""
Program: version u32, execution_plan [Plan], constant_buffer [Buffer], backend_delegate_data [Inline],
    segments [Segment], constant_segment Subsegment, mutable_data_segments -, named_data [Named]
Buffer: storage [u8]
Inline: data [u8]
Segment: offset u64, size u64
Subsegment: segment_index u32, offsets [u64]
Named: key string, segment_index u32
Plan: name string, container_meta_type Container, values [EValue], inputs [i32], outputs [i32], chains [Chain],
    operators [Operator], delegates [Delegate], non_const_buffer_sizes [i64], non_const_buffer_device -
Container: encoded_inp_str string, encoded_out_str string
EValue: val Value
union Value: Null Int Bool Double Tensor String IntList DoubleList BoolList TensorList OptionalTensorList
Null:
Int: int_val i64
Bool: bool_val bool
Double: double_val f64
String: string_val string
IntList: items [i64]
DoubleList: items [f64]
BoolList: items [bool]
TensorList: items [i32]
OptionalTensorList: items [i32]
Tensor: scalar_type i8, storage_offset i32, sizes [i32], dim_order [u8], requires_grad bool, data_buffer_idx u32,
    allocation_info Allocation, layout i8, shape_dynamism i8, extra_tensor_info Extra
Allocation: memory_id u32, memory_offset_low u32, memory_offset_high u32
Extra: mutable_data_segments_idx u64, fully_qualified_name string, location i8, device_type i8, device_index i8
Operator: name string, overload string
Chain: inputs [i32], outputs [i32], instructions [Instruction], stacktrace -
Instruction: instr_args Call
union Call: KernelCall DelegateCall MoveCall - FreeCall
KernelCall: op_index i32, args [i32]
DelegateCall: delegate_index i32, args [i32]
MoveCall: move_from i32, move_to i32
FreeCall: value_index i32
Delegate: id string, processed Reference, compile_specs [Specification]
Reference: location i8, index u32
Specification: key string, value [u8]
""")
_IDENTIFIER, _HEADER = b"ET12", struct.Struct("<4sIQQQ")  # after the first 8 bytes: magic, length, and where parts are
_MAGIC = b"eh00"
_BYTES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1, 15: 2}  # of a value by its type
_HALF = 5
_INLINE, _FIXED, _BOUNDED = 0, 0, 1
_MOST_DIMS, _MOST_VALUES = 16, 1 << 40


@dataclass(frozen=True)
class ProgramInput:
    """What the network of a program takes: the sides of its input, and whether it is float16."""

    sizes: tuple[int, ...]
    half: bool


def check_program(content: bytes) -> ProgramInput:
    """Check the content of a program.

    Raises:
        DamagedError: its parts lead out of the file or do not fit together.
        UnknownPartError: it holds more than computations of a closed list.
    """
    program_size, segments_at, segments_size = _sizes(content)
    program = read_flatbuffer(memoryview(content)[:program_size], _SCHEMA, "Program", _IDENTIFIER)
    if any(len(buffer["storage"]) for buffer in program["constant_buffer"]):
        raise UnknownPartError("it keeps constants in an old form")
    segments = [((entry["offset"] or 0), (entry["size"] or 0)) for entry in program["segments"]]
    if any(offset + size > segments_size for offset, size in segments):
        raise DamagedError("a segment leads out of the file; was it cut off?")
    stored = [memoryview(content)[segments_at + offset :][:size] for offset, size in segments]
    named = {entry["key"] or "": len(_at(stored, entry["segment_index"])) for entry in program["named_data"]}
    constants = program["constant_segment"] or {"offsets": [], "segment_index": 0}
    room = len(_at(stored, constants["segment_index"])) if constants["offsets"] else 0
    for plan in program["execution_plan"]:
        _check_delegates(plan, program["backend_delegate_data"], stored, named)
        _check_values(plan, [room - offset for offset in constants["offsets"]])
        _check_calls(plan)
    forward = next((plan for plan in program["execution_plan"] if plan["name"] == FORWARD), None)
    if forward is None or len(forward["inputs"]) != 1:
        raise UnknownPartError(f"it has no method '{FORWARD}' with one input")
    taken = forward["values"][forward["inputs"][0]]["val"]
    if not taken or taken[0] != "Tensor":
        raise UnknownPartError("it does not take images")
    tensor = taken[1]
    return ProgramInput(tuple(tensor["sizes"]), tensor["scalar_type"] == _HALF)


def _sizes(content: bytes) -> tuple[int, int, int]:
    """Bytes of the program itself, where its segments begin, and their bytes in all."""
    if len(content) < 8 + _HEADER.size or content[4:8] != _IDENTIFIER:
        raise DamagedError(f"it does not begin with {_IDENTIFIER.decode()}")
    magic, length, size, start, more = _HEADER.unpack_from(content, 8)
    if magic != _MAGIC or length != _HEADER.size:
        raise UnknownPartError("it has another header than programs of ExecuTorch 1.0 and later")
    if size > len(content) or (start and start < size) or start + more > len(content):
        raise DamagedError("its parts lead out of the file; was it cut off?")
    return size, start, more


def _at(values: Sequence[Any], index: int | None) -> Any:
    if not 0 <= (index or 0) < len(values):
        raise DamagedError("a number leads out of its list")
    return values[index or 0]


def _check_delegates(
    plan: Mapping[str, Any], inline: Sequence[Any], stored: Sequence[memoryview], named: Mapping[str, int]
) -> None:
    for delegate in plan["delegates"]:
        if delegate["id"] != _XNNPACK or delegate["compile_specs"]:
            raise UnknownPartError(f"it has a part for {str(delegate['id'])[:50]!r}, whose content cannot be checked")
        place = delegate["processed"] or {"location": _INLINE, "index": 0}
        if (place["location"] or _INLINE) == _INLINE:
            content = _at(inline, place["index"])["data"]
        else:
            content = _at(stored, place["index"])
        check_xnnpack_graph(content, named)


def _check_values(plan: Mapping[str, Any], rooms: Sequence[int]) -> None:
    """Raise: a tensor is larger than what it is stored or planned in, or a list names values of other kinds.

    Args:
        rooms: bytes from the start of every constant to the end of all.
    """
    values = [value["val"] for value in plan["values"]]
    buffers = plan["non_const_buffer_sizes"]
    if any(size < 0 for size in buffers):
        raise DamagedError("a buffer is less than empty")
    kinds = [value[0] if value else "" for value in values]
    wanted = {"IntList": "Int", "TensorList": "Tensor", "OptionalTensorList": "Tensor"}
    for kind, value in filter(None, values):
        if kind == "Tensor":
            _check_tensor(value, buffers, rooms)
        for index in value["items"] if kind in wanted else ():
            optional = kind == "OptionalTensorList"
            if not (optional and index == -1) and _at(kinds, index) not in (wanted[kind], "Null" if optional else ""):
                raise DamagedError(f"an {kind} names values of another kind")


def _check_tensor(tensor: Mapping[str, Any], buffers: Sequence[int], rooms: Sequence[int]) -> None:
    sizes, order = tensor["sizes"], list(tensor["dim_order"])
    extra, plan = tensor["extra_tensor_info"] or {}, tensor["allocation_info"]
    if any(extra.get(key) for key in ("location", "device_type", "device_index")) or tensor["layout"]:
        raise UnknownPartError("a tensor lies outside of the file")
    if (tensor["shape_dynamism"] or _FIXED) not in (_FIXED, _BOUNDED) or tensor["storage_offset"]:
        raise UnknownPartError("a tensor has no limit of its size")
    if len(sizes) > _MOST_DIMS or sorted(order) != list(range(len(sizes))) or min(sizes, default=0) < 0:
        raise DamagedError(f"a tensor has the sizes {sizes}"[:200])
    needed = math.prod(sizes) * _BYTES.get(tensor["scalar_type"] or 0, 8)
    if (tensor["scalar_type"] or 0) not in _BYTES or needed > _MOST_VALUES:
        raise UnknownPartError(f"a tensor is of type {tensor['scalar_type']} and {sizes}"[:200])
    constant = tensor["data_buffer_idx"] or 0
    if constant and plan:
        raise UnknownPartError("a tensor has a state that is kept")
    if constant and _at(rooms, constant) < needed:
        raise DamagedError("a constant is shorter than its tensor; was the file cut off?")
    if plan:
        offset = (plan["memory_offset_low"] or 0) + ((plan["memory_offset_high"] or 0) << 32)
        if not plan["memory_id"] or offset + needed > _at(buffers, plan["memory_id"]):
            raise DamagedError("a tensor is larger than its memory")


def _check_calls(plan: Mapping[str, Any]) -> None:
    names = [f"{operator['name']}" for operator in plan["operators"]]
    others = sorted({name for name in names if name not in EXECUTORCH_OPERATORS})
    if others:
        raise UnknownPartError(f"it uses the operator {others[0][:100]!r}, which is not among those of detectors")
    count = len(plan["values"])
    inside: Callable[[int | None], bool] = lambda index: 0 <= (index or 0) < count  # noqa: E731
    if not all(map(inside, (*plan["inputs"], *plan["outputs"]))) or len(plan["chains"]) != 1:
        raise DamagedError("an input or output is missing")
    for call in plan["chains"][0]["instructions"]:
        if call["instr_args"] is None:
            raise DamagedError("a call is missing")
        kind, given = call["instr_args"]
        if kind == "KernelCall":
            _at(names, given["op_index"])
        elif kind == "DelegateCall":
            _at(plan["delegates"], given["delegate_index"])
        numbers = given["args"] if "args" in given else given.values()
        if not all(map(inside, numbers)):
            raise DamagedError("a call takes a value that is not there")
