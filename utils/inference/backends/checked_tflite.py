"""TFLite models (``.tflite``): one graph of operations of a closed list, each constant as long as its tensor.

Refused are operations of others (custom ones and those of TensorFlow, which are code of an application), graphs that
call graphs, and whatever keeps a state. What follows the model in the file is an archive that LiteRT does not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from utils.inference.backends.base import UnknownPartError
from utils.inference.backends.flatbuffer import DamagedError, Schema, read_flatbuffer

# Numbers of BuiltinOperator in tensorflow/lite/schema/schema.fbs, of operations that compute tensors from tensors.
_NAMES = """
0 ADD 1 AVERAGE_POOL_2D 2 CONCATENATION 3 CONV_2D 4 DEPTHWISE_CONV_2D 5 DEPTH_TO_SPACE 6 DEQUANTIZE 8 FLOOR
9 FULLY_CONNECTED 11 L2_NORMALIZATION 14 LOGISTIC 17 MAX_POOL_2D 18 MUL 19 RELU 20 RELU_N1_TO_1 21 RELU6 22 RESHAPE
23 RESIZE_BILINEAR 25 SOFTMAX 26 SPACE_TO_DEPTH 28 TANH 34 PAD 36 GATHER 37 BATCH_TO_SPACE_ND 38 SPACE_TO_BATCH_ND
39 TRANSPOSE 40 MEAN 41 SUB 42 DIV 43 SQUEEZE 45 STRIDED_SLICE 47 EXP 48 TOPK_V2 49 SPLIT 50 LOG_SOFTMAX 53 CAST
54 PRELU 55 MAXIMUM 56 ARG_MAX 57 MINIMUM 58 LESS 59 NEG 60 PADV2 61 GREATER 62 GREATER_EQUAL 63 LESS_EQUAL 64 SELECT
65 SLICE 66 SIN 67 TRANSPOSE_CONV 69 TILE 70 EXPAND_DIMS 71 EQUAL 72 NOT_EQUAL 73 LOG 74 SUM 75 SQRT 76 RSQRT 77 SHAPE
78 POW 79 ARG_MIN 81 REDUCE_PROD 82 REDUCE_MAX 83 PACK 84 LOGICAL_OR 85 ONE_HOT 86 LOGICAL_AND 87 LOGICAL_NOT 88 UNPACK
89 REDUCE_MIN 90 FLOOR_DIV 91 REDUCE_ANY 92 SQUARE 93 ZEROS_LIKE 94 FILL 95 FLOOR_MOD 96 RANGE
97 RESIZE_NEAREST_NEIGHBOR 98 LEAKY_RELU 99 SQUARED_DIFFERENCE 100 MIRROR_PAD 101 ABS 102 SPLIT_V 104 CEIL
105 REVERSE_V2 106 ADD_N 107 GATHER_ND 108 COS 109 WHERE 110 RANK 111 ELU 114 QUANTIZE 116 ROUND 117 HARD_SWISH
120 NON_MAX_SUPPRESSION_V4 121 NON_MAX_SUPPRESSION_V5 123 SELECT_V2 126 BATCH_MATMUL 128 CUMSUM 130 BROADCAST_TO
140 REDUCE_ALL 145 BROADCAST_ARGS 150 GELU 152 RELU_0_TO_1 158 SIGN
"""
_WORDS = _NAMES.split()
TFLITE_OPERATIONS = dict(zip(map(int, _WORDS[::2]), _WORDS[1::2]))
# Numbers of BuiltinOptions there, and their fields; an operation whose options are not listed has none.
_OPTIONS = """
1 padding i8, stride_w i32, stride_h i32, activation i8, dilation_w i32, dilation_h i32, bias_type i8
2 padding i8, stride_w i32, stride_h i32, multiplier i32, activation i8, dilation_w i32, dilation_h i32
5 padding i8, stride_w i32, stride_h i32, filter_width i32, filter_height i32, activation i8
8 activation i8, weights_format i8, keep_num_dims bool, asymmetric bool, bias_type i8, quant_spec -
9 beta f32
10 axis i32, activation i8
11 activation i8, pot_scale bool
12 activation i8
15 new_height -, new_width -, align_corners bool, half_pixel_centers bool
17 new_shape [i32]
19 block_size i32
21 activation i8
22
23 axis i32, batch_dims i32
24
25
26
27 keep_dims bool
28 activation i8, pot_scale bool
29 activation i8
30 squeeze_dims [i32]
32 begin_mask i32, end_mask i32, ellipsis_mask i32, new_axis_mask i32, shrink_axis_mask i32, offset bool
33
34
35 num_splits i32
36
37 in_data_type i8, out_data_type i8
38
39
40 output_type i8
41
42
43
44
45
46
47
48
49 padding i8, stride_w i32, stride_h i32, activation i8, bias_type i8
51
52
53
54
55 out_type i8
56
57 output_type i8
59 values_count i32, axis i32
60
61 axis i32
62
63
64 num i32, axis i32
65
66
67
68
72
73
74 align_corners bool, half_pixel_centers bool
75 alpha f32
76
77 mode i8
78
79 num_splits i32
81
82
83
84
85
86
89
91
94 block_size i32
95
96
98
101 adj_x bool, adj_y bool, asymmetric bool
102 exclusive bool, reverse bool
104
116 approximate bool
122
"""
_FIELDS = {int(number): fields for number, _, fields in (line.partition(" ") for line in _OPTIONS.split("\n") if line)}
_TABLES = "\n".join(f"Options{number}: {fields}" for number, fields in _FIELDS.items())
_SCHEMA = Schema.of(f"""
{_TABLES}
union Options: {" ".join(f"Options{n}" if n in _FIELDS else "-" for n in range(1, max(_FIELDS) + 1))}
Model: version u32, operator_codes [Code], subgraphs [Graph], description string, buffers [Buffer],
    metadata_buffer [i32], metadata [Metadata], signature_defs [Signature]
Code: deprecated_builtin_code i8, custom_code string, version i32, builtin_code i32
Graph: tensors [Tensor], inputs [i32], outputs [i32], operators [Operator], name string, debug_metadata_index i32
Tensor: shape [i32], type i8, buffer u32, name string, quantization Quantization, is_variable bool, sparsity -,
    shape_signature [i32], has_rank bool, variant_tensors -, external_buffer -
Quantization: min [f32], max [f32], scale [f32], zero_point [i64], details_type u8, details -, quantized_dimension i32
Operator: opcode_index u32, inputs [i32], outputs [i32], builtin_options Options, custom_options [u8],
    custom_options_format i8, mutating_variable_inputs [bool], intermediates [i32], large_custom_options_offset -,
    large_custom_options_size -, options2_type -, options2 -, debug_metadata_index i32
Buffer: data [u8], offset u64, size u64
Metadata: name string, buffer u32
Signature: inputs [Map], outputs [Map], signature_key string, tag -, subgraph_index u32
Map: name string, tensor_index u32
""")
_IDENTIFIER, _VERSION = b"TFL3", 3
_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 15: 4, 16: 2, 18: 2}  # of a value by its type
_MOST_DIMS, _MOST_BYTES = 8, 1 << 33
_CUSTOM = 32


def check_tflite(content: bytes) -> None:
    """Check the content of a model.

    Raises:
        DamagedError: its parts lead out of the file or do not fit together.
        UnknownPartError: it holds more than computations of a closed list.
    """
    model = read_flatbuffer(content, _SCHEMA, "Model", _IDENTIFIER)
    if model["version"] != _VERSION or len(model["subgraphs"]) != 1:
        raise UnknownPartError(f"it has {len(model['subgraphs'])} graphs of version {model['version']}")
    (graph,), buffers = model["subgraphs"], model["buffers"]
    codes = [_known(code) for code in model["operator_codes"]]
    lengths = [_length(buffer, len(content)) for buffer in buffers]
    constants = [_check_tensor(tensor, lengths) for tensor in graph["tensors"]]
    entries = [*(entry["buffer"] or 0 for entry in model["metadata"]), *model["metadata_buffer"]]
    ports = [port for signature in model["signature_defs"] for port in (*signature["inputs"], *signature["outputs"])]
    numbers = [*graph["inputs"], *graph["outputs"], *(port["tensor_index"] or 0 for port in ports)]
    if any(signature["subgraph_index"] for signature in model["signature_defs"]):
        raise DamagedError("it names a graph that is not there")
    if not _within(numbers, len(constants)) or not _within(entries, len(buffers)):
        raise DamagedError("it names a tensor that is not there")
    _check_operators(graph, codes, constants)


def _within(numbers: Sequence[int], count: int, least: int = 0) -> bool:
    return all(least <= number < count for number in numbers)


def _known(code: Mapping[str, Any]) -> str:
    """The name of an operation."""
    number = max(code["deprecated_builtin_code"] or 0, code["builtin_code"] or 0)
    if code["custom_code"] or number not in TFLITE_OPERATIONS:
        name = code["custom_code"] or f"number {number}"
        kind = "a custom one" if code["custom_code"] or number == _CUSTOM else "which no detector needs"
        raise UnknownPartError(f"it uses the operation {name[:100]!r}, {kind}")
    return TFLITE_OPERATIONS[number]


def _length(buffer: Mapping[str, Any], end: int) -> int:
    """Bytes of a buffer, which may lie behind the graph; a place of 1 stands for none."""
    start, size = buffer["offset"] or 0, buffer["size"] or 0
    if start <= 1 and not size:
        return len(buffer["data"])
    if len(buffer["data"]) or start + size > end:
        raise DamagedError("a constant leads out of the file; was it cut off?")
    return int(size)


def _check_tensor(tensor: Mapping[str, Any], lengths: Sequence[int]) -> bool:
    """Whether a tensor is a constant.

    Args:
        lengths: bytes of each buffer.
    """
    shape, kind, number = tensor["shape"], tensor["type"] or 0, tensor["buffer"] or 0
    if kind not in _BYTES or tensor["is_variable"]:
        raise UnknownPartError(f"it has a tensor of type {kind}, or one that keeps a state")
    needed = math.prod(shape) * _BYTES[kind]
    if len(shape) > _MOST_DIMS or min(shape, default=0) < 0 or needed > _MOST_BYTES or number >= len(lengths):
        raise DamagedError(f"it has a tensor {shape}"[:200])
    stored = lengths[number]
    if stored and stored != needed:
        raise DamagedError(f"a constant {shape} has {stored} bytes instead of {needed}"[:200])
    quantization = tensor["quantization"] or {"scale": [], "zero_point": [], "quantized_dimension": 0}
    scales, axis = len(quantization["scale"]), quantization["quantized_dimension"] or 0
    sides = {0, 1, shape[axis] if 0 <= axis < len(shape) else 1}
    if scales not in sides or len(quantization["zero_point"]) not in (0, scales) or axis < 0:
        raise DamagedError(f"a tensor {shape} has {scales} scales"[:200])
    return bool(stored)


def _check_operators(graph: Mapping[str, Any], codes: Sequence[str], constants: Sequence[bool]) -> None:
    """Raise: an operation takes or gives what is not there, or writes where something else is."""
    given = set(graph["inputs"])
    for operator in graph["operators"]:
        if (operator["opcode_index"] or 0) >= len(codes):
            raise DamagedError("an operation is not there")
        if len(operator["custom_options"]) or any(operator["mutating_variable_inputs"]) or operator["intermediates"]:
            raise UnknownPartError(f"its operation {codes[operator['opcode_index'] or 0]} keeps a state")
        taken, made = operator["inputs"], operator["outputs"]
        if not _within(taken, len(constants), -1) or not _within(made, len(constants)) or len(set(made)) < len(made):
            raise DamagedError("an operation takes a tensor that is not there")
        if any(constants[number] or number in given for number in made):
            raise DamagedError("an operation writes over another tensor")
        if any(number >= 0 and not constants[number] and number not in given for number in taken):
            raise DamagedError("an operation takes a tensor before it is computed")
        given.update(made)
