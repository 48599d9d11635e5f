"""Graphs for other libraries, such as ONNX Runtime: checked by closed lists, then run once in a separate process."""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from utils.core.errors import InputError
from utils.core.memory import free_memory
from utils.core.packages import import_optional
from utils.inference import sandbox
from utils.inference.venvs import run_program

SANDBOX = Path(sandbox.__file__)
_FREE = 64  # pixels of a free side, when a file is run in the sandbox
_SECONDS, _MEMORY, _PER_BYTE, _PER_VALUE = 300, 4 << 30, 20, 4_000  # bytes: at least, for the file, for the images
# Operations that compute tensors from tensors; no loops, which may never end.
_ONNX = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape
Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu
Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity If InstanceNormalization LayerNormalization
LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max MaxPool Min Mish Mod Mul Neg NonMaxSuppression
NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceL2 ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign
Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Tile TopK Transpose Trilu
Unsqueeze Upsample Where Xor IsInf IsNaN GridSample
"""
_OPENVINO = """
Abs Add AdaptiveAvgPool AdaptiveMaxPool AvgPool BatchNormInference Broadcast Ceiling Clamp Concat Const Convert
ConvertLike Convolution ConvolutionBackpropData Cos CumSum DepthToSpace Divide Einsum ELU Elu Equal Erf Exp FakeQuantize
FakeConvert Floor FloorMod Gather GatherElements GatherND Gelu Greater GreaterEqual GridSample GroupConvolution
GroupConvolutionBackpropData GroupNormalization HardSigmoid HSigmoid HSwish Interpolate Less LessEqual Log LogicalAnd
LogicalNot LogicalOr LogSoftmax MatMul MaxPool Maximum Minimum Mish Mod Multiply MVN Negative NonMaxSuppression NonZero
NormalizeL2 NotEqual OneHot Pad Parameter Power PReLU Range ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReLU Reshape Result Round Select Selu ShapeOf Sigmoid Sign Sin Slice SoftMax Softmax SoftPlus SoftSign SpaceToDepth
Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile TopK Transpose Unsqueeze VariadicSplit
"""
ONNX_OPERATIONS, OPENVINO_OPERATIONS = frozenset(_ONNX.split()), frozenset(_OPENVINO.split())
_OPSET = re.compile(r"opset\d{1,2}", re.ASCII)
_IN_XML = {"net": {"layers", "edges", "rt_info"}, "layer": {"data", "input", "output", "rt_info"}}
_MOST_LAYERS, _DEEPEST = 50_000, 3
_LONGEST = 300  # characters of a message


def read_onnx(file: Path) -> tuple[bytes, Any]:
    """Return the content of an ``.onnx`` file, serialized again, and its model.

    Raises:
        ValueError: other operations than those of detectors, or weights in other files.
        Exception: of ``onnx``, if it is no ONNX file.
    """
    onnx = import_optional("onnx", "onnx", f"the check of {file}")
    model = onnx.load_model_from_string(file.read_bytes())
    model.DiscardUnknownFields()
    if not model.graph.node or not model.graph.input or model.functions or model.training_info:
        raise ValueError("refused, it is more or less than one graph of operations")
    _check_onnx(onnx, model.graph, _DEEPEST)
    return model.SerializeToString(), model


def _check_onnx(onnx: Any, graph: Any, depth: int) -> None:
    if depth < 0 or len(graph.node) > _MOST_LAYERS or graph.sparse_initializer:
        raise ValueError("refused, it is larger or nested deeper than a detector")
    tensors = list(graph.initializer)
    for node in graph.node:
        if node.op_type not in ONNX_OPERATIONS or node.domain not in ("", "ai.onnx"):
            name = f"{node.domain}.{node.op_type}".strip(".")[:100]
            raise ValueError(f"refused, it uses the operation {name!r}, which is not among those of detectors")
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            if attribute.graphs or attribute.sparse_tensors or attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                raise ValueError(f"refused, its operation {node.op_type} holds more than numbers and tensors")
            if attribute.type == onnx.AttributeProto.GRAPH:
                _check_onnx(onnx, attribute.g, depth - 1)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise ValueError("refused, it keeps weights in another file; save it as one file")


def read_openvino(xml: Path) -> tuple[bytes, bytes]:
    """Return the graph and the weights of an OpenVINO model, the graph serialized again.

    Raises:
        ValueError: other layers than those of detectors.
        ElementTree.ParseError: no xml.
    """
    text = xml.read_bytes().decode(
        "utf-8"
    )  # as text: the very text that is checked is parsed, whatever encoding it declares
    if "<!" in text.replace("<!--", ""):
        raise ValueError("refused, its xml defines entities")
    root = ElementTree.fromstring(text)
    weights = xml.with_suffix(".bin")
    if not weights.is_file():
        raise ValueError(f"{weights.name} with its weights is missing")
    stored = weights.read_bytes()
    if root.tag != "net" or {part.tag for part in root} - _IN_XML["net"] or len(root.findall("layers")) != 1:
        raise ValueError("refused, it is more or less than one graph of layers")
    layers = root.find("layers")
    assert layers is not None
    if len(layers) > _MOST_LAYERS or len(list(root.iter("layer"))) != len(layers):
        raise ValueError("refused, it has more layers than a detector, or some inside others")
    for layer in layers:
        kind, opset = str(layer.get("type")), str(layer.get("version"))
        if layer.tag != "layer" or kind not in OPENVINO_OPERATIONS or not _OPSET.fullmatch(opset):
            raise ValueError(f"refused, it has a layer {kind[:50]!r} of {opset[:50]!r}, which no detector needs")
        if {part.tag for part in layer} - _IN_XML["layer"]:
            raise ValueError(f"refused, its layer {kind} holds more than sizes and numbers")
        for data in layer.iter("data"):
            start, size = int(data.get("offset", 0)), int(data.get("size", 0))
            if kind == "Const" and not 0 <= start <= start + size <= len(stored):
                raise ValueError("refused, a constant lies outside of its file of weights; was it cut off?")
    return ElementTree.tostring(root), stored


def run_in_sandbox(kind: str, parts: dict[str, bytes], sides: Sequence[int | None], half: bool = False) -> None:
    """Let a library open and run a graph on empty images, in a separate process with limits.

    Args:
        kind: of the library, as in :mod:`utils.inference.sandbox`.
        parts: content of the files by name; the first one is opened.
        sides: of the input, None where any fits.
        half: the input is float16.

    Raises:
        InputError: it failed or crashed the process, as it would have crashed ours.
    """
    free = (1, 3, _FREE, _FREE)
    shape = [side or other for side, other in zip(sides, free)] if len(sides) == 4 else list(free)
    if not 0 < math.prod(shape) < 1 << 28:
        raise InputError(f"refused, it takes images of {' x '.join(map(str, shape))}")
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        for name, content in parts.items():
            (Path(folder) / name).write_bytes(content)
        try:
            run_file_in_sandbox(kind, Path(folder) / next(iter(parts)), sum(map(len, parts.values())), shape, half)
        except InputError as error:
            raise InputError(f"cannot be run: {str(error)[:_LONGEST]}") from error


def run_file_in_sandbox(
    kind: str,
    file: Path,
    size: int,
    shape: Sequence[int],
    half: bool,
    seconds: int = _SECONDS,
    what: str = "a trial in its own process",
) -> None:
    """As :func:`run_in_sandbox`, for an existing file of ``size`` bytes, with its weights; ``what`` begins messages.

    The limit of memory depends on the size of the file and of the images, and on the free memory.
    """
    wanted, there = _PER_BYTE * size + _PER_VALUE * math.prod(shape), free_memory(torch.device("cpu"))
    memory = _MEMORY + (wanted if there is None else min(wanted, there))
    work = {
        "kind": kind,
        "file": str(file.absolute()),
        "shape": shape,
        "half": half,
        "memory": memory,
        "seconds": seconds,
    }
    work["path"] = sys.path
    run_program(Path(sys.executable), SANDBOX, [json.dumps(work)], seconds + 10, what)
