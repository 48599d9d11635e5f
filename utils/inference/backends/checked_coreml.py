"""Core ML packages (``.mlpackage``): one program of operations of a closed list, its weights in the package.

A package is a folder of files that a list in it names. What is checked is a copy with a list of our own, so that Core
ML reads nothing else.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.core.files import open_regular
from utils.inference.backends.base import UnknownPartError
from utils.inference.backends.flatbuffer import DamagedError

MANIFEST, MODEL = "Manifest.json", "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
_OF_THE_SYSTEM = ".DS_Store"  # what Finder puts into every folder
_LIST = {
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {
        "model": {"author": "com.apple.CoreML", "description": "CoreML Model Specification", "name": "model.mlmodel",
                  "path": "com.apple.CoreML/model.mlmodel"},
        "weights": {"author": "com.apple.CoreML", "description": "CoreML Model Weights", "name": "weights",
                    "path": "com.apple.CoreML/weights"},
    },
    "rootModelIdentifier": "model",
}  # fmt: skip
# Operations that compute tensors from tensors: no loops, no functions, no states, no code of an application.
_OPERATIONS = """
abs add argsort avg_pool batch_norm band_part cast ceil clamped_relu clip concat const conv conv_transpose cos crop
crop_resize cumsum depth_to_space einsum elu equal erf exp exp2 expand_dims fill fill_like flatten2d floor floor_div
gather gather_along_axis gather_nd gelu greater greater_equal identity instance_norm inverse l2_norm l2_pool layer_norm
leaky_relu less less_equal linear linear_activation local_response_norm log logical_and logical_not logical_or
logical_xor matmul max_pool maximum minimum mod mul non_maximum_suppression non_zero not_equal one_hot pad
pixel_shuffle pixel_unshuffle pow prelu range_1d real_div reduce_argmax reduce_argmin reduce_l1_norm reduce_l2_norm
reduce_log_sum reduce_log_sum_exp reduce_max reduce_mean reduce_min reduce_prod reduce_sum reduce_sum_square relu relu6
resize resize_bilinear resize_nearest_neighbor reshape reshape_like reverse round rsqrt scaled_tanh scatter
scatter_along_axis scatter_nd select shape sigmoid sigmoid_hard sign silu sin slice_by_index slice_by_size softmax
softplus softplus_parametric softsign space_to_batch space_to_depth batch_to_space split sqrt square squeeze stack sub
tan tanh threshold thresholded_relu tile topk transpose upsample_bilinear upsample_nearest_neighbor
"""
MIL_OPERATIONS = frozenset(_OPERATIONS.split())
_BYTES = {1: 1, 10: 2, 11: 4, 12: 8, 21: 1, 22: 2, 23: 4, 31: 1, 32: 2}  # of a value by its type
_FILE_NAME = "@model_path/weights/weight.bin"
_ENTRY = struct.Struct("<IIQQ")  # of a constant in the file of weights: mark, type, its bytes and where they are
_MARK = 0xDEADBEEF
_OPSET = re.compile(r"CoreML\d{1,2}", re.ASCII)
_MOST_OPERATIONS, _MOST_DIMS = 50_000, 8


def checked_copy(package: Path, folder: Path, protobuf: Any) -> Path:
    """Copy what a package needs and check it.

    Args:
        folder: where it is made.
        protobuf: the class of the description, ``coremltools.proto.Model_pb2.Model``.

    Raises:
        DamagedError: a file is missing or cut off.
        UnknownPartError: it holds more than a network of a closed list of operations.
        OSError: a file cannot be read, or is none. Whatever protobuf raises on a file that is none.
    """
    files = sorted(path.relative_to(package).as_posix() for path in package.rglob("*") if not path.is_dir())
    linked = [path.name for path in package.rglob("*") if path.is_symlink()]
    others = [name for name in files if Path(name).name != _OF_THE_SYSTEM and name not in (MANIFEST, MODEL, WEIGHTS)]
    if others or linked:
        raise UnknownPartError(f"it holds {(linked or others)[0][:100]!r}, which no such package needs")
    if missing := {MANIFEST, MODEL} - set(files):
        raise DamagedError(f"its {sorted(missing)[0]} is missing")
    copy = folder / "model.mlpackage"
    weights = copy / WEIGHTS
    weights.parent.mkdir(parents=True)
    if WEIGHTS in files:
        with open_regular(package / WEIGHTS) as source, weights.open("wb") as target:
            shutil.copyfileobj(source, target)
    with open_regular(package / MODEL) as source:
        described = protobuf.FromString(source.read())
    described.DiscardUnknownFields()
    check_coreml(described, weights)
    (copy / MODEL).write_bytes(described.SerializeToString())
    (copy / MANIFEST).write_text(json.dumps(_LIST), encoding="utf-8")
    return copy


def check_coreml(model: Any, weights: Path) -> None:
    """Check the description of a model.

    Args:
        weights: its file of weights, where it has one.

    Raises:
        DamagedError, UnknownPartError: as :func:`checked_copy`.
    """
    kind, described = model.WhichOneof("Type"), {field.name for field, _ in model.description.ListFields()}
    if kind != "mlProgram" or model.isUpdatable or described - {"input", "output", "metadata"}:
        raise UnknownPartError(f"it is more than a network (a {kind or 'model of no kind'})")
    program = model.mlProgram
    functions = [(name, list(function.block_specializations)) for name, function in program.functions.items()]
    if len(functions) != 1 or functions[0][0] != "main" or len(functions[0][1]) != 1:
        raise UnknownPartError("it has several functions or none")
    opset = functions[0][1][0]
    block = program.functions["main"].block_specializations[opset]
    if not _OPSET.fullmatch(opset) or len(block.operations) > _MOST_OPERATIONS:
        raise UnknownPartError(f"it has {len(block.operations)} operations of {opset[:50]!r}")
    for operation in block.operations:
        if operation.type not in MIL_OPERATIONS or operation.blocks:
            raise UnknownPartError(
                f"it uses the operation {operation.type[:100]!r}, which is not among those of detectors"
            )
    stored = weights.read_bytes() if weights.is_file() else b""
    for value in _in_weights(program):
        _check_constant(value, stored)


def _in_weights(message: Any) -> Iterator[Any]:
    """The values below a message that lie in a file."""
    for field, content in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            parts = list(content.values()) if field.message_type.fields_by_name["value"].message_type else []
        else:
            parts = list(content) if field.is_repeated else [content]
        for part in parts:
            if part.DESCRIPTOR.name == "Value" and part.WhichOneof("value") == "blobFileValue":
                yield part
            else:
                yield from _in_weights(part)


def _check_constant(value: Any, stored: bytes) -> None:
    """Raise: a constant lies in another file, or is shorter than its tensor."""
    place, tensor = value.blobFileValue, value.type.tensorType
    if place.fileName != _FILE_NAME:
        raise UnknownPartError(f"it keeps constants in {place.fileName[:100]!r}")
    sides = [side.constant.size for side in tensor.dimensions]
    if value.type.WhichOneof("type") != "tensorType" or tensor.dataType not in _BYTES or len(sides) > _MOST_DIMS:
        raise UnknownPartError("it has a constant that is no tensor of numbers")
    if place.offset + _ENTRY.size > len(stored):
        raise DamagedError("a constant lies outside of the file of weights; was it cut off?")
    mark, _, size, start = _ENTRY.unpack_from(stored, place.offset)
    if mark != _MARK or start + size > len(stored) or size != math.prod(sides) * _BYTES[tensor.dataType]:
        raise DamagedError("a constant does not fit its tensor; was the file of weights cut off?")
