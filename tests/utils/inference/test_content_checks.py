"""Files of TFLite, ExecuTorch and Core ML by others: what is more than a network or does not fit is refused."""

from __future__ import annotations

import copy
import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.core.errors import InputError
from utils.inference.backends import checked_coreml, checked_executorch, checked_tflite, checked_xnnpack
from utils.inference.backends.base import NeedsTrustError, UnknownPartError, checking_content
from utils.inference.backends.checked_executorch import ProgramInput, check_program
from utils.inference.backends.checked_tflite import check_tflite
from utils.inference.backends.flatbuffer import DamagedError, Schema, read_flatbuffer

CPU = torch.device("cpu")
Values = dict[str, Any]
_place = Path(__file__).parents[2] / "fuzz/flatbuffer_writer.py"
_spec = importlib.util.spec_from_file_location("flatbuffer_writer", _place)
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
write_flatbuffer: Callable[..., bytes] = _module.write_flatbuffer


def changed(values: Values, place: str, new: Any) -> Values:
    """A copy with another value at a place such as ``graphs.0.name``; what the place leads through is made."""
    copied = copy.deepcopy(values)
    part: Any = copied
    *path, last = [int(word) if word.isdecimal() else word for word in place.split(".")]
    for word in path:
        part = part[word]
    part[last] = new
    return copied


# Buffers --------------------------------------------------------------------------------------------------------------

SMALL = Schema.of("""
Root: flag bool, number i32, big u64, name string, parts [Part], one Kind, words [string], bytes [u8], old -
Part: sizes [i64]
Other: value f32
union Kind: Part Other -
""")
VALUES: Values = {
    "flag": 1, "number": -7, "big": 1 << 40, "name": "图", "parts": [{"sizes": [1, 2]}, {"sizes": []}],
    "one": ("Other", {"value": 0.5}), "words": ["a", ""], "bytes": b"abc",
}  # fmt: skip


def small(values: Values = VALUES) -> bytes:
    return write_flatbuffer(SMALL, "Root", b"TEST", values)


def test_a_buffer_is_read_as_it_was_written() -> None:
    found = read_flatbuffer(small(), SMALL, "Root", b"TEST")
    assert {**found, "bytes": bytes(found["bytes"])} == VALUES
    empty = read_flatbuffer(small({}), SMALL, "Root", b"TEST")
    assert (empty["number"], empty["parts"], empty["one"]) == (None, (), None)


def test_a_buffer_that_is_cut_off_or_changed_anywhere_is_read_or_refused() -> None:
    whole, refused = small(), 0
    for content in (
        *(whole[:end] for end in range(len(whole))),
        *(whole[:at] + bytes([byte]) + whole[at + 1 :] for at in range(len(whole)) for byte in (0, 1, 127, 255)),
    ):
        try:
            read_flatbuffer(content, SMALL, "Root", b"TEST")
        except (DamagedError, UnknownPartError):
            refused += 1
    assert refused > len(whole)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"more": [(10, "i32", 1)]}, "its Root has a field 10"),
        ({"more": [(9, "i32", 1)]}, "its Root has 'old'"),
        ({"parts": [{"more": [(1, "string", "x")]}]}, "its Part has a field 1"),
        ({"more": [(5, "u8", 3), (6, "Part", {})]}, "one number 3"),
        ({"more": [(5, "u8", 9), (6, "Part", {})]}, "one number 9"),
    ],
)
def test_what_the_schema_does_not_list_is_refused(values: Values, message: str) -> None:
    with pytest.raises(UnknownPartError, match=message):
        read_flatbuffer(small(values), SMALL, "Root", b"TEST")


@pytest.mark.parametrize("values", [{"more": [(5, "u8", 1)]}, {"more": [(6, "Part", {})]}])
def test_half_a_union_is_refused(values: Values) -> None:
    with pytest.raises(DamagedError, match="one half of 'one'"):
        read_flatbuffer(small(values), SMALL, "Root", b"TEST")


def test_tables_that_hold_one_another_come_to_an_end() -> None:
    nested = Schema.of("Root: below [Root]")
    values: Values = {}
    for _ in range(50):
        values = {"below": [values]}
    with pytest.raises(DamagedError, match="nested too deeply"):
        read_flatbuffer(write_flatbuffer(nested, "Root", b"TEST", values), nested, "Root", b"TEST")
    content = bytearray(write_flatbuffer(nested, "Root", b"TEST", {"below": [{}] * 2000}))
    struct.pack_into("<2000I", content, content.find(struct.pack("<I", 2000)) + 4, *[0xFFFFFFF0] * 2000)
    with pytest.raises(DamagedError, match="leads out of the file"):
        read_flatbuffer(bytes(content), nested, "Root", b"TEST")


# TFLite ---------------------------------------------------------------------------------------------------------------


def lite_tensor(shape: list[int], buffer: int = 0, **more: Any) -> Values:
    return {"shape": shape, "type": 0, "buffer": buffer, "name": "t", **more}


CONV = {"padding": 0, "stride_w": 1, "stride_h": 1, "activation": 0, "dilation_w": 1, "dilation_h": 1}
LITE: Values = {
    "version": 3, "operator_codes": [{"deprecated_builtin_code": 3, "version": 1}, {"builtin_code": 14}],
    "subgraphs": [{
        "tensors": [lite_tensor([1, 4, 4, 3]), lite_tensor([2, 1, 1, 3], 1), lite_tensor([2], 2),
                    lite_tensor([1, 4, 4, 2]), lite_tensor([1, 4, 4, 2])],
        "inputs": [0], "outputs": [4],
        "operators": [
            {"opcode_index": 0, "inputs": [0, 1, 2], "outputs": [3], "builtin_options": ("Options1", CONV)},
            {"opcode_index": 1, "inputs": [3], "outputs": [4]},
        ],
    }],
    "buffers": [{}, {"data": bytes(24)}, {"data": bytes(8)}],
}  # fmt: skip


def lite(values: Values = LITE) -> bytes:
    return write_flatbuffer(checked_tflite._SCHEMA, "Model", b"TFL3", values)


def test_a_tflite_model_of_known_operations_is_accepted() -> None:
    check_tflite(lite())
    check_tflite(lite() + b"PK and what else follows")
    half = changed(LITE, "subgraphs.0.operators.0.inputs", [0, 1, -1])  # without a bias
    check_tflite(lite(half))


GRAPH = "subgraphs.0"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("operator_codes.1", {"builtin_code": 32, "custom_code": "FlexWriteFile"}, "'FlexWriteFile', a custom one"),
        ("operator_codes.1", {"builtin_code": 32}, "'number 32', a custom one"),
        ("operator_codes.1", {"builtin_code": 14, "custom_code": "x"}, "'x', a custom one"),
        ("operator_codes.1", {"builtin_code": 119}, "'number 119', which no detector needs"),  # WHILE
        ("operator_codes.1", {"builtin_code": 129}, "'number 129'"),  # CALL_ONCE
        ("operator_codes.1", {"deprecated_builtin_code": 127, "builtin_code": 206}, "'number 206'"),
        ("operator_codes.1", {"builtin_code": -5, "deprecated_builtin_code": 51}, "'number 51'"),
        ("subgraphs", LITE["subgraphs"] * 2, "2 graphs of version 3"),
        ("version", 4, "1 graphs of version 4"),
        (f"{GRAPH}.tensors.3.is_variable", 1, "keeps a state"),
        (f"{GRAPH}.tensors.3.type", 13, "a tensor of type 13"),
        (f"{GRAPH}.tensors.3.more", [(6, "Buffer", {})], "its Tensor has 'sparsity'"),
        (f"{GRAPH}.tensors.3.more", [(10, "u32", 1)], "its Tensor has 'external_buffer'"),
        (f"{GRAPH}.operators.1.custom_options", b"x", "its operation LOGISTIC keeps a state"),
        (f"{GRAPH}.operators.1.more", [(11, "u8", 2)], "its Operator has 'options2_type'"),
        (f"{GRAPH}.operators.0.more", [(3, "u8", 92), (4, "Buffer", {})], "builtin_options number 92"),
        ("more", [(9, "[Buffer]", [{}])], "its Model has a field 9"),
    ],
)  # fmt: skip
def test_a_tflite_model_that_is_more_than_a_network_is_refused(place: str, value: Any, message: str) -> None:
    values = changed(LITE, place, value)
    if "more" in place and "builtin_options" in message:
        del values["subgraphs"][0]["operators"][0]["builtin_options"]
    with pytest.raises(UnknownPartError, match=message):
        check_tflite(lite(values))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("buffers.1.data", bytes(20), r"a constant \[2, 1, 1, 3\] has 20 bytes instead of 24"),
        ("buffers.1", {"offset": 100_000, "size": 24}, "a constant leads out of the file"),
        ("buffers.1.size", 24, "a constant leads out of the file"),  # in two places at once
        (f"{GRAPH}.tensors.1.shape", [2, 1, 1, 1 << 29], "it has a tensor|instead of"),
        (f"{GRAPH}.tensors.3.shape", [1, -4, 4, 2], "it has a tensor"),
        (f"{GRAPH}.tensors.3.shape", [1 << 30] * 4, "it has a tensor"),
        (f"{GRAPH}.tensors.3.shape", [1] * 9, "it has a tensor"),
        (f"{GRAPH}.tensors.1.buffer", 3, "it has a tensor"),
        (f"{GRAPH}.tensors.1.quantization", {"scale": [0.1] * 3, "zero_point": [0] * 3}, "has 3 scales"),
        (f"{GRAPH}.tensors.1.quantization", {"scale": [0.1], "zero_point": [0] * 3}, "has 1 scales"),
        (f"{GRAPH}.tensors.1.quantization", {"scale": [0.1] * 2, "quantized_dimension": 3}, "has 2 scales"),
        (f"{GRAPH}.inputs", [5], "names a tensor that is not there"),
        (f"{GRAPH}.outputs", [-1], "names a tensor that is not there"),
        (f"{GRAPH}.operators.1.opcode_index", 2, "an operation is not there"),
        (f"{GRAPH}.operators.1.inputs", [9], "takes a tensor that is not there"),
        (f"{GRAPH}.operators.1.inputs", [-2], "takes a tensor that is not there"),
        (f"{GRAPH}.operators.1.inputs", [4], "before it is computed"),
        (f"{GRAPH}.operators.0.outputs", [1], "writes over another tensor"),
        (f"{GRAPH}.operators.0.outputs", [0], "writes over another tensor"),
        (f"{GRAPH}.operators.1.outputs", [3], "writes over another tensor"),
        (f"{GRAPH}.operators.1.outputs", [4, 4], "takes a tensor that is not there"),
        ("signature_defs", [{"subgraph_index": 1}], "a graph that is not there"),
        ("signature_defs", [{"inputs": [{"tensor_index": 7}]}], "a tensor that is not there"),
        ("metadata", [{"buffer": 3}], "a tensor that is not there"),
    ],
)  # fmt: skip
def test_a_tflite_model_that_does_not_fit_together_is_refused(place: str, value: Any, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        check_tflite(lite(changed(LITE, place, value)))


def test_constants_behind_the_graph_are_found_there() -> None:
    values = changed(LITE, "buffers.1", {"offset": 1, "size": 24})
    start = len(lite(values))
    values["buffers"][1]["offset"] = start
    check_tflite(lite(values) + bytes(24))
    with pytest.raises(DamagedError, match="was it cut off"):
        check_tflite(lite(values) + bytes(23))


# ExecuTorch -----------------------------------------------------------------------------------------------------------


def extern(number: int, dims: list[int], **more: Any) -> Values:
    tensor = {"datatype": 1, "num_dims": len(dims), "dims": dims, "external_id": number, "flags": 1, "id_out": number}
    return {"xvalue_union": ("Tensor", {**tensor, **more})}


def inner(number: int, dims: list[int], constant: int = 0) -> Values:
    return extern(number, dims, external_id=0xFFFFFFFF, flags=0, constant_buffer_idx=constant)


XCONV = {
    "kernel_height": 1, "kernel_width": 1, "subsampling_height": 1, "subsampling_width": 1, "dilation_height": 1,
    "dilation_width": 1, "group_input_channels": 3, "group_output_channels": 2, "groups": 1, "input1_id": 0,
    "filter_id": 2, "bias_id": 3, "output_id": 1,
}  # fmt: skip
XGRAPH: Values = {
    "version": "0", "xnodes": [{"xnode_union": ("Conv2d", XCONV)}],
    "xvalues": [extern(0, [1, 4, 4, 3]), extern(1, [1, 4, 4, 2]), inner(2, [2, 1, 1, 3], 1), inner(3, [2], 2)],
    "num_externs": 2, "input_ids": [0], "output_ids": [1],
    "constant_data": [{}, {"offset": 0, "size": 24}, {"offset": 0xFFFFFFFFFFFFFFFF, "size": 8, "named_key": "bias"}],
}  # fmt: skip


def xnnpack(values: Values, stored: bytes = bytes(24)) -> bytes:
    graph = write_flatbuffer(checked_xnnpack._SCHEMA, "Graph", b"XN01", values)
    head = struct.pack("<4s4sHIIIQ", bytes(4), b"XH00", 30, 32, len(graph), 32 + len(graph), len(stored))
    return head + bytes(2) + graph + stored


def value(kind: str, content: Values) -> Values:
    return {"val": (kind, content)}


def planned(sizes: list[int], offset: int = 0) -> Values:
    plan = {"memory_id": 1, "memory_offset_low": offset}
    return {"scalar_type": 6, "sizes": sizes, "dim_order": bytes(range(len(sizes))), "allocation_info": plan}


PROGRAM: Values = {
    "execution_plan": [{
        "name": "forward", "inputs": [0], "outputs": [2],
        "values": [
            value("Tensor", planned([1, 3, 4, 4])), value("Int", {"int_val": 1}),
            value("Tensor", planned([1, 3, 4, 4], 192)), value("IntList", {"items": [1, 1]}),
            value("Tensor", {"scalar_type": 6, "sizes": [3], "dim_order": b"\0", "data_buffer_idx": 1}),
            value("OptionalTensorList", {"items": [4, -1]}),
        ],
        "chains": [{"inputs": [], "outputs": [], "instructions": [
            {"instr_args": ("KernelCall", {"op_index": 0, "args": [0, 4, 2, 2]})},
            {"instr_args": ("DelegateCall", {"delegate_index": 0, "args": [0, 2]})},
        ]}],
        "operators": [{"name": "aten::mul", "overload": "out"}],
        "delegates": [{"id": "XnnpackBackend", "processed": {"location": 1, "index": 1}, "compile_specs": []}],
        "non_const_buffer_sizes": [0, 384],
    }],
    "segments": [{"offset": 0, "size": 16}, {"offset": 16, "size": 0}, {"offset": 0, "size": 8}],
    "constant_segment": {"segment_index": 0, "offsets": [0, 4]},
    "named_data": [{"key": "bias", "segment_index": 2}],
}  # fmt: skip


def program(values: Values = PROGRAM, graph: Values | None = None, cut: int = 0) -> bytes:
    delegate = xnnpack(XGRAPH if graph is None else graph)
    values = copy.deepcopy(values)
    if values["segments"][1]["size"] == 0:
        values["segments"][1]["size"] = len(delegate)
    content = bytearray(write_flatbuffer(checked_executorch._SCHEMA, "Program", b"ET12", values, 32))
    stored = bytes(16) + delegate
    start = -(-len(content) // 16) * 16
    struct.pack_into("<4sIQQQ", content, 8, b"eh00", 32, len(content), start, len(stored))
    whole = bytes(content) + bytes(start - len(content)) + stored
    return whole[: len(whole) - cut]


def test_a_program_of_known_operators_is_accepted_with_what_it_takes() -> None:
    assert check_program(program()) == ProgramInput((1, 3, 4, 4), half=False)


PLAN = "execution_plan.0"
CALLS = f"{PLAN}.chains.0.instructions"


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        (f"{PLAN}.operators.0.name", "aten::from_file", "the operator 'aten::from_file', which is not among those"),
        (f"{PLAN}.operators.0.name", "llama::sdpa", "the operator 'llama::sdpa'"),
        (f"{PLAN}.operators.0.name", None, "the operator 'None'"),
        (f"{PLAN}.delegates.0.id", "QnnBackend", "a part for 'QnnBackend', whose content cannot be checked"),
        (f"{PLAN}.delegates.0.compile_specs", [{"key": "x", "value": b"y"}], "a part for 'XnnpackBackend'"),
        (f"{PLAN}.more", [(9, "[u8]", b"x")], "its Plan has 'non_const_buffer_device'"),
        (f"{PLAN}.name", "other", "no method 'forward'"),
        (f"{PLAN}.inputs", [1], "does not take images"),
        (f"{CALLS}.0", {"more": [(0, "u8", 4), (1, "MoveCall", {})]}, "instr_args number 4"),  # a jump
        (f"{PLAN}.values.2.val.1.extra_tensor_info", {"location": 1}, "outside of the file"),
        (f"{PLAN}.values.2.val.1.extra_tensor_info", {"device_type": 1}, "outside of the file"),
        (f"{PLAN}.values.2.val.1.shape_dynamism", 2, "no limit of its size"),
        (f"{PLAN}.values.2.val.1.storage_offset", 4, "no limit of its size"),
        (f"{PLAN}.values.2.val.1.scalar_type", 9, "of type 9"),
        (f"{PLAN}.values.4.val.1.allocation_info", {"memory_id": 1}, "a state that is kept"),
        ("constant_buffer", [{"storage": b"x"}], "constants in an old form"),
        ("more", [(6, "[u8]", b"x")], "its Program has 'mutable_data_segments'"),
    ],
)
def test_a_program_that_is_more_than_a_network_is_refused(place: str, new: Any, message: str) -> None:
    values = copy.deepcopy(PROGRAM)
    for entry in values["execution_plan"][0]["values"]:
        entry["val"] = list(entry["val"])
    with pytest.raises(UnknownPartError, match=message):
        check_program(program(changed(values, place, new)))


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        ("segments.0.size", 100_000, "a segment leads out of the file"),
        ("segments.0.offset", 1 << 63, "a segment leads out of the file"),
        ("constant_segment.offsets", [0, 8], "a constant is shorter than its tensor"),
        ("constant_segment.segment_index", 9, "a number leads out of its list"),
        (f"{PLAN}.values.4.val.1.data_buffer_idx", 2, "a number leads out of its list"),
        (f"{PLAN}.values.4.val.1.sizes", [4], "a constant is shorter than its tensor"),
        (f"{PLAN}.values.2.val.1.sizes", [1, 3, 4, 5], "a tensor is larger than its memory"),
        (f"{PLAN}.values.2.val.1.sizes", [1, 3, 4, -4], "a tensor has the sizes"),
        (f"{PLAN}.values.2.val.1.dim_order", b"\0\1\2\2", "a tensor has the sizes"),
        (f"{PLAN}.values.2.val.1.dim_order", b"\0\1\2", "a tensor has the sizes"),
        (f"{PLAN}.values.2.val.1.allocation_info", {"memory_id": 2}, "a number leads out of its list"),
        (f"{PLAN}.values.2.val.1.allocation_info", {"memory_offset_low": 0}, "larger than its memory"),
        (f"{PLAN}.values.2.val.1.allocation_info", {"memory_id": 1, "memory_offset_high": 1}, "larger than its memory"),
        (f"{PLAN}.non_const_buffer_sizes", [0, -1], "a buffer is less than empty"),
        (f"{PLAN}.values.3.val.1.items", [0], "an IntList names values of another kind"),
        (f"{PLAN}.values.3.val.1.items", [99], "a number leads out of its list"),
        (f"{PLAN}.values.3.val.1.items", [-1], "a number leads out of its list"),
        (f"{PLAN}.values.5.val.1.items", [1], "an OptionalTensorList names values of another kind"),
        (f"{PLAN}.inputs", [6], "an input or output is missing"),
        (f"{PLAN}.outputs", [-1], "an input or output is missing"),
        (f"{PLAN}.chains", [], "an input or output is missing"),
        (f"{CALLS}.0.instr_args.1.args", [0, 6], "a call takes a value that is not there"),
        (f"{CALLS}.0.instr_args.1.op_index", 1, "a number leads out of its list"),
        (f"{CALLS}.1.instr_args.1.delegate_index", -1, "a number leads out of its list"),
        (f"{CALLS}.1", {}, "a call is missing"),
        (f"{CALLS}.1", {"instr_args": ("FreeCall", {"value_index": 6})}, "a call takes a value that is not there"),
        (f"{CALLS}.1", {"instr_args": ("MoveCall", {"move_from": 0, "move_to": 9})}, "takes a value that is not"),
        (f"{PLAN}.delegates.0.processed.index", 3, "a number leads out of its list"),
        (f"{PLAN}.delegates.0.processed.index", 0, "too short"),
        (f"{PLAN}.delegates.0.processed", {"location": 0, "index": 0}, "a number leads out of its list"),
        ("named_data.0.segment_index", 3, "a number leads out of its list"),
        ("named_data.0.key", "other", "a constant of XNNPACK leads out of the file"),
    ],
)
def test_a_program_that_does_not_fit_together_is_refused(place: str, new: Any, message: str) -> None:
    values = copy.deepcopy(PROGRAM)
    for entry in (*values["execution_plan"][0]["values"],):
        entry["val"] = list(entry["val"])
    for entry in values["execution_plan"][0]["chains"][0]["instructions"]:
        entry["instr_args"] = list(entry["instr_args"])
    with pytest.raises(DamagedError, match=message):
        check_program(program(changed(values, place, new)))


@pytest.mark.parametrize(
    ("place", "new", "error", "message"),
    [
        ("xnodes.0.xnode_union", None, DamagedError, "an operation of XNNPACK is missing"),
        ("xnodes.0", {"more": [(0, "u8", 36), (1, "Buffer", {})]}, UnknownPartError, "xnode_union number 36"),
        ("xnodes.0", {"more": [(0, "u8", 48), (1, "Buffer", {})]}, UnknownPartError, "xnode_union number 48"),
        ("xnodes.0.xnode_union.1.group_input_channels", 4, DamagedError, "weights of other sizes than it says"),
        ("xnodes.0.xnode_union.1.kernel_height", 9, DamagedError, "weights of other sizes than it says"),
        ("xnodes.0.xnode_union.1.groups", 2, DamagedError, "weights of other sizes than it says"),
        ("xnodes.0.xnode_union.1.bias_id", 0, DamagedError, "weights of other sizes than it says"),
        ("xnodes.0.xnode_union.1.filter_id", 7, DamagedError, "takes a tensor that is not there"),
        ("xnodes.0.xnode_union.1.filter_id", 0xFFFFFFFF, DamagedError, "takes a tensor that is not there"),
        ("xvalues.2", inner(2, [2, 1, 1, 4], 1), DamagedError, "shorter than its tensor"),
        ("xvalues.2", inner(2, [2, 1, 1, 3], 3), DamagedError, "none of the graph"),
        ("xvalues.2", inner(1, [2, 1, 1, 3], 1), DamagedError, "none of the graph"),
        ("xvalues.0", extern(0, [1, 4, 4, 3], external_id=2), DamagedError, "none of the graph"),
        ("xvalues.0", extern(0, [1] * 7), DamagedError, "has no shape"),
        ("xvalues.0", extern(0, [1, 4, 4, 3], num_dims=5), DamagedError, "has no shape"),
        ("xvalues.0", {}, DamagedError, "has no shape"),
        ("xvalues.0", extern(0, [1, 1 << 30, 4, 3]), UnknownPartError, "a tensor of XNNPACK is of type 1"),
        ("xvalues.0", extern(0, [1, 4, 4, 3], datatype=6), UnknownPartError, "a tensor of XNNPACK is of type 6"),
        ("xvalues.0", {"more": [(0, "u8", 2), (1, "Buffer", {})]}, UnknownPartError, "xvalue_union number 2"),
        ("input_ids", [9], DamagedError, "an input or output of XNNPACK is missing"),
        ("constant_data.1", {"offset": 8, "size": 24}, DamagedError, "leads out of the file"),
        ("constant_data.1", {"offset": 0, "size": 24, "named_key": "bias"}, DamagedError, "leads out of the file"),
        ("constant_data.2.size", 9, DamagedError, "leads out of the file"),
        ("constant_buffer", [{"storage": b"x"}], UnknownPartError, "keeps constants in its graph"),
    ],
)
def test_a_graph_for_xnnpack_is_checked_as_well(place: str, new: Any, error: type[ValueError], message: str) -> None:
    values = copy.deepcopy(XGRAPH)
    values["xnodes"][0]["xnode_union"] = list(values["xnodes"][0]["xnode_union"])
    with pytest.raises(error, match=message):
        check_program(program(graph=changed(values, place, new)))


@pytest.mark.parametrize(
    ("kind", "numbers", "ranks"),
    [
        ("StaticTranspose", {"num_dims": 4, "perm": [0, 1]}, [4, 4]),
        ("StaticSlice", {"num_dims": 4, "offsets": [0] * 4, "sizes": [1] * 3}, [4, 4]),
        ("StaticReshape", {"num_dims": 7, "new_shape": [1] * 7}, [4, 4]),
        ("StaticConstantPad", {"pre_paddings": [1], "post_paddings": [1]}, [4, 4]),
        ("FullyConnected", {"input1_id": 0, "filter_id": 1, "bias_id": 0xFFFFFFFF}, [4, 4]),
    ],
)
def test_lists_of_axes_are_as_long_as_the_operation_reads_them(kind: str, numbers: Values, ranks: list[int]) -> None:
    node = {"input_id": 0, "output_id": 1, **numbers}
    values = [extern(index, [1] * rank) for index, rank in enumerate(ranks)]
    graph = {**XGRAPH, "xnodes": [{"xnode_union": (kind, node)}], "xvalues": values, "constant_data": []}
    with pytest.raises(DamagedError, match=f"{kind} of XNNPACK"):
        check_program(program(graph=graph))


def test_a_program_that_is_cut_off_anywhere_is_refused() -> None:
    length = len(program())
    for cut in range(1, length + 1, 7):
        with pytest.raises((DamagedError, UnknownPartError)):
            check_program(program(cut=cut))


def test_refusals_name_the_way_out_and_damage_does_not(tmp_path: Path) -> None:
    file = tmp_path / "a.pte"
    refused = pytest.raises(NeedsTrustError, match=r"a\.pte: refused, it runs; if you trust its maker, give --trust$")
    with refused, checking_content(file, "a program"):
        raise UnknownPartError("it runs")
    damaged = pytest.raises(InputError, match=r"a\.pte: cannot be read as a program: cut off$")
    with damaged as caught, checking_content(file, "a program"):
        raise DamagedError("cut off")
    assert not isinstance(caught.value, NeedsTrustError)


# Core ML --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Path]:
    """``package(change)`` -> a package of one constant and one sum, its description as ``change`` leaves it."""
    proto = pytest.importorskip("coremltools.proto.Model_pb2")

    def make(change: Callable[[Any], None] = lambda model: None, **files: bytes) -> Path:
        model = proto.Model(specificationVersion=6)
        model.description.input.add(name="images")
        model.description.output.add(name="boxes")
        function = model.mlProgram.functions["main"]
        function.opset = "CoreML5"
        block = function.block_specializations["CoreML5"]
        constant, total = block.operations.add(type="const"), block.operations.add(type="add")
        held = constant.attributes["val"]
        held.type.tensorType.dataType = 11
        for side in (2, 3):
            held.type.tensorType.dimensions.add().constant.size = side
        held.blobFileValue.fileName, held.blobFileValue.offset = "@model_path/weights/weight.bin", 64
        total.inputs["x"].arguments.add().name = "images"
        change(model)
        folder = tmp_path / "mit Leerzeichen ü.mlpackage"
        weights = bytes(64) + struct.pack("<IIQQ", 0xDEADBEEF, 2, 24, 128) + bytes(40) + bytes(24)
        usual = {checked_coreml.MANIFEST: b"{}", checked_coreml.MODEL: model.SerializeToString(),
                 checked_coreml.WEIGHTS: weights}  # fmt: skip
        for name, content in {**usual, **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return make


def copied(package: Path, tmp_path: Path) -> Path:
    from coremltools.proto.Model_pb2 import Model

    return checked_coreml.checked_copy(package, tmp_path / "copy", Model)


def main_of(model: Any) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML5"]


def test_a_package_of_known_operations_is_copied_without_what_it_does_not_need(
    package: Callable[..., Path], tmp_path: Path
) -> None:
    made = package(**{".DS_Store": b"x", "Data/.DS_Store": b"x"})
    copy_of = copied(made, tmp_path)
    names = {path.relative_to(copy_of).as_posix() for path in copy_of.rglob("*") if path.is_file()}
    assert names == {checked_coreml.MANIFEST, checked_coreml.MODEL, checked_coreml.WEIGHTS}
    for name in (checked_coreml.MODEL, checked_coreml.WEIGHTS):
        assert (copy_of / name).read_bytes() == (made / name).read_bytes()
    assert b"rootModelIdentifier" in (copy_of / checked_coreml.MANIFEST).read_bytes()


SHORT = bytes(64) + struct.pack("<IIQQ", 0xDEADBEEF, 2, 24, 129) + bytes(64)
CHANGES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda m: m.customModel.SetInParent(), "more than a network \\(a customModel\\)"),
    (lambda m: m.pipeline.models.add(), "more than a network \\(a pipeline\\)"),
    (lambda m: m.linkedModel.SetInParent(), "more than a network \\(a linkedModel\\)"),
    (lambda m: m.neuralNetwork.layers.add().custom.SetInParent(), "more than a network \\(a neuralNetwork\\)"),
    (lambda m: setattr(m, "isUpdatable", True), "more than a network"),
    (lambda m: m.description.trainingInput.add(), "more than a network"),
    (lambda m: m.description.state.add(), "more than a network"),
    (lambda m: m.mlProgram.functions["other"].SetInParent(), "several functions or none"),
    (lambda m: m.mlProgram.functions["main"].block_specializations["CoreML6"].SetInParent(), "several functions"),
    (lambda m: main_of(m).operations.add(type="while_loop"), "the operation 'while_loop', which is not among"),
    (lambda m: main_of(m).operations.add(type="custom_layer"), "the operation 'custom_layer'"),
    (lambda m: main_of(m).operations.add(type="read_state"), "the operation 'read_state'"),
    (lambda m: main_of(m).operations.add(), "the operation ''"),
    (lambda m: main_of(m).operations[1].blocks.add(), "the operation 'add'"),
    (
        lambda m: setattr(blob_of(m), "fileName", "../../../../etc/passwd"),
        "keeps constants in '../",
    ),
    (lambda m: setattr(blob_of(m), "fileName", "@model_path/weights/../x"), "keeps constants in"),
    (lambda m: setattr(deep_blob(m), "fileName", "/etc/passwd"), "keeps constants in '/etc/passwd'"),
]


def blob_of(model: Any) -> Any:
    return main_of(model).operations[0].attributes["val"].blobFileValue


def deep_blob(model: Any) -> Any:
    argument = main_of(model).operations[1].inputs["y"].arguments.add()
    return argument.value.immediateValue.tuple.values.add().blobFileValue


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_package_that_is_more_than_a_network_is_refused(
    package: Callable[..., Path], tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(UnknownPartError, match=message):
        copied(package(change), tmp_path)


@pytest.mark.parametrize(
    "name", ["Data/com.apple.CoreML/other.bin", "x.mlmodelc/a", "Data/com.apple.CoreML/model.MLMODEL"]
)
def test_a_package_with_other_files_is_refused(package: Callable[..., Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownPartError, match="which no such package needs"):
        copied(package(**{name: b"x"}), tmp_path)


@pytest.mark.parametrize("name", [checked_coreml.WEIGHTS, "Data/com.apple.CoreML/weights"])
def test_a_package_with_links_is_refused(package: Callable[..., Path], tmp_path: Path, name: str) -> None:
    made = package()
    (made / name).rename(tmp_path / "elsewhere")
    (made / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnknownPartError, match="which no such package needs"):
        copied(made, tmp_path)


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (lambda model: setattr(blob_of(model), "offset", 1 << 40), {}),
        (lambda model: setattr(blob_of(model), "offset", 0), {}),
        (lambda model: None, {checked_coreml.WEIGHTS: bytes(64)}),
        (
            lambda model: None,
            {checked_coreml.WEIGHTS: SHORT},
        ),
        (lambda model: setattr(main_of(model).operations[0].attributes["val"].type.tensorType, "dataType", 10), {}),
    ],
)
def test_constants_of_a_package_lie_in_its_weights(
    package: Callable[..., Path], tmp_path: Path, change: Callable[[Any], None], files: dict[str, bytes]
) -> None:
    with pytest.raises(DamagedError, match=r"was (it|the file of weights) cut off"):
        copied(package(change, **files), tmp_path)


def test_a_package_without_its_files_is_damaged(package: Callable[..., Path], tmp_path: Path) -> None:
    made = package()
    (made / checked_coreml.MODEL).unlink()
    with pytest.raises(DamagedError, match=r"model\.mlmodel is missing"):
        copied(made, tmp_path)
