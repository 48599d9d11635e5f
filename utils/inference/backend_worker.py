"""The program that runs a TensorFlow or LiteRT model for another process that does not have the packages for it.

    python backend_worker.py saved_model|pb FILE THREADS
    python backend_worker.py tflite|edgetpu - THREADS MEMORY

It runs in a separate environment and so imports nothing of this repository; its client is
:mod:`utils.inference.backend_client`. A message is the length of its header in four bytes, the header as JSON
(``arrays``: type and shape of each, and other keys), then the values of the arrays. The first message describes inputs
and outputs of the model, or has the key ``error``; then each message read is answered by one, until the input ends. A
TFLite model is read before, as a message of its bytes: what the client has checked is what runs. ``MEMORY`` is what it
may take in bytes, 0 for any.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

METADATA_NODE = "yolov5_dynamic_about"  # name of the node of a frozen graph that holds the metadata
EDGETPU = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
# The operations a detection model is made of; any other could touch files, the network or Python.
_ARITHMETIC = """
Abs Add AddN AddV2 All Any ArgMax ArgMin AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd
BroadcastTo Cast Ceil ClipByValue CombinedNonMaxSuppression Concat ConcatV2 Const Conv2D Conv2DBackpropInput
DepthToSpace DepthwiseConv2dNative Div DivNoNan Einsum Elu Equal Erf Exp ExpandDims Fill Floor FloorDiv FloorMod
FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN
LeakyRelu Less LessEqual Log LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool MaxPoolV2 Maximum Mean Min Minimum
MirrorPad Mul Neg NoOp NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot OnesLike Pack Pad
PadV2 Pow Prod Range Rank RealDiv Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt
Select SelectV2 Selu Shape ShapeN Sigmoid Sign Size Slice Softmax Softplus SpaceToBatchND SpaceToDepth Split SplitV
Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tanh Tile TopKV2 Transpose Unpack Where
ZerosLike Placeholder PlaceholderWithDefault VarHandleOp ReadVariableOp PartitionedCall StatefulPartitionedCall If
StatelessIf While StatelessWhile
"""
# Writing and reading of the variables: part of every SavedModel, not needed to run it.
_SAVER = "SaveV2 RestoreV2 MergeV2Checkpoints AssignVariableOp ShardedFilename StringJoin StaticRegexFullMatch"
_AT_LOADING = ("saved_model_main_op", "legacy_init_op")


def write_message(stream: IO[bytes], head: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Send one message."""
    packed = [np.ascontiguousarray(array) for array in arrays]
    text = json.dumps({**head, "arrays": [[a.dtype.str, list(a.shape)] for a in packed]}).encode()
    stream.write(struct.pack("<I", len(text)) + text)
    for array in packed:
        stream.write(array.tobytes() if array.ndim == 0 or not array.size else array.data.cast("B"))
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Receive one message.

    Raises:
        EOFError: the other process has ended.
    """
    (length,) = struct.unpack("<I", _exactly(stream, 4))
    head = json.loads(_exactly(stream, length))
    arrays = []
    for kind, shape in head.pop("arrays"):
        size = np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(_exactly(stream, size), np.dtype(kind)).reshape(shape))
    return head, arrays


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return content


def limit(memory: int) -> None:
    """Bound the memory of this process to what it has reserved and so much more, and the files it writes.

    Without effect where the system cannot.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError):
        return
    wanted = {resource.RLIMIT_FSIZE: 1 << 20, resource.RLIMIT_CORE: 0}  # what is printed, and no dumps
    if memory:
        wanted[resource.RLIMIT_AS] = pages * os.sysconf("SC_PAGE_SIZE") + memory
    for kind, most in wanted.items():
        known = resource.getrlimit(kind)[1]  # a limit of the user's own holds: it cannot be raised
        bound = most if known == resource.RLIM_INFINITY else min(most, known)
        resource.setrlimit(kind, (bound, bound))


class LiteModel:
    """A TFLite model; ``library`` is the one of the Edge TPU, ``memory`` what the model may take in bytes, 0 for any.

    Inputs and outputs that are stored in whole numbers are converted, so that both are float32 outside.
    """

    def __init__(self, content: bytes, threads: int, library: str = "", memory: int = 0) -> None:
        from ai_edge_litert.interpreter import Interpreter, load_delegate

        extra = {"experimental_delegates": [load_delegate(library)]} if library else {}
        limit(memory)
        self.interpreter = Interpreter(model_content=content, num_threads=threads, **extra)
        self.interpreter.allocate_tensors()
        self.inputs, self.outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()

    def about(self) -> dict[str, Any]:
        shapes = [[int(side) for side in entry["shape_signature"]] for entry in self.inputs]
        return {"inputs": shapes, "outputs": [[int(side) for side in entry["shape"]] for entry in self.outputs]}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        for entry, array in zip(self.inputs, arrays):
            scale, zero = entry["quantization"]
            if scale:
                limits = np.iinfo(entry["dtype"])
                array = np.clip(np.round(array / scale) + zero, limits.min, limits.max)
            self.interpreter.set_tensor(entry["index"], array.astype(entry["dtype"]))
        self.interpreter.invoke()
        return [
            _as_float(self.interpreter.get_tensor(entry["index"]), *entry["quantization"]) for entry in self.outputs
        ]


def _as_float(array: np.ndarray, scale: float, zero: int) -> np.ndarray:
    return (array.astype(np.float32) - zero) * np.float32(scale) if scale else array.astype(np.float32)


class GraphModel:
    """A function of TensorFlow with one input."""

    def __init__(self, function: Callable[..., Any], shape: Any, outputs: Iterable[Any], said: str = "") -> None:
        self.function, self.said = function, said
        self.shapes = [_sides(shape)], [_sides(output.shape) for output in outputs]

    def about(self) -> dict[str, Any]:
        return {"inputs": self.shapes[0], "outputs": self.shapes[1], "about": self.said}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        import tensorflow as tf

        return [output.numpy().astype(np.float32) for output in self.function(tf.constant(arrays[0]))]


def _sides(shape: Any) -> list[int]:
    return [-1 if side is None else int(side) for side in shape] if shape.rank is not None else []


def saved_model(folder: Path, threads: int) -> GraphModel:
    """Open the signature ``serving_default`` of a SavedModel."""
    tf = _tensorflow(threads)
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    for graph in SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs:
        _refuse_code(graph.graph_def, _SAVER)
        _refuse_code_at_loading(graph)
    loaded = tf.saved_model.load(str(folder))
    if "serving_default" not in loaded.signatures:
        raise ValueError("it has no signature serving_default")
    serve = loaded.signatures["serving_default"]
    _refuse_code(serve.graph.as_graph_def())  # without operations that save and restore
    (name, given), *others = serve.structured_input_signature[1].items()
    if others:
        raise ValueError(f"takes {len(others) + 1} inputs, expected one")

    def function(images: Any) -> list[Any]:
        answer = serve(**{name: images})
        return [answer[key] for key in sorted(answer)]

    function.__dict__["kept"] = loaded  # it owns the variables
    return GraphModel(
        function, given.shape, [serve.structured_outputs[key] for key in sorted(serve.structured_outputs)]
    )


def frozen_graph(file: Path, threads: int) -> GraphModel:
    """Open a graph with one placeholder; its outputs are the nodes that no other node reads."""
    tf = _tensorflow(threads)
    graph = tf.compat.v1.GraphDef.FromString(file.read_bytes())
    _refuse_code(graph)
    said = [n.attr["value"].tensor.string_val[0].decode() for n in graph.node if n.name == METADATA_NODE]
    read = {name.lstrip("^").split(":")[0] for node in graph.node for name in node.input}
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    outputs = [n.name for n in graph.node if n.name not in read and n.op not in ("NoOp", "Const", "Placeholder")]
    if len(inputs) != 1 or not outputs:
        raise ValueError(f"a graph with {len(inputs)} inputs and {len(outputs)} outputs, expected one and some")
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    tensor = wrapped.graph.get_tensor_by_name(f"{inputs[0]}:0")
    results = [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in sorted(outputs)]
    return GraphModel(wrapped.prune([tensor], results), tensor.shape, results, said[0] if said else "")


def _tensorflow(threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def _refuse_code(graph: Any, more: str = "") -> None:
    """Raise ValueError: the graph holds operations besides arithmetic, its own functions and ``more``."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    functions = {function.signature.name for function in graph.library.function}
    others = sorted({node.op for node in nodes} - {*_ARITHMETIC.split(), *more.split()} - functions)
    if others:
        raise ValueError(f"refused, it holds operations that no detection model needs: {', '.join(others)}")


def _refuse_code_at_loading(graph: Any) -> None:
    """Raise ValueError: a graph of a SavedModel does something when it is loaded."""
    nodes = {node.name: node for node in graph.graph_def.node}
    started = [name for key in _AT_LOADING for name in graph.collection_def[key].node_list.value]
    idle = all(name in nodes and nodes[name].op == "NoOp" and not nodes[name].input for name in started)
    if not idle or any(node.WhichOneof("kind") == "resource" for node in graph.object_graph_def.nodes):
        raise ValueError("refused, it runs operations when it is loaded")


def open_model(kind: str, file: Path, threads: int, memory: int, source: IO[bytes]) -> LiteModel | GraphModel:
    """Open the model of a file, or of the first message."""
    if kind in ("tflite", "edgetpu"):
        _, (content,) = read_message(source)
        library = EDGETPU.get(sys.platform, "libedgetpu.so.1") if kind == "edgetpu" else ""
        return LiteModel(content.tobytes(), threads, library, memory)
    return saved_model(file, threads) if kind == "saved_model" else frozen_graph(file, threads)


def answer_requests(opened: Callable[[], Any], source: IO[bytes], target: IO[bytes]) -> None:
    """Open a model and answer until the input ends; an exception of a library is sent as an answer too."""
    try:
        model = opened()
        write_message(target, model.about())
    except Exception as error:  # each library has its own
        write_message(target, {"error": _line(error)})
        return
    while True:
        try:
            _, arrays = read_message(source)
        except EOFError:
            return
        try:
            results = model.run(arrays)
        except Exception as error:
            write_message(target, {"error": _line(error)})
            continue
        write_message(target, {}, results)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def main(words: Sequence[str]) -> None:
    kind, file, threads, memory = words[0], Path(words[1]), int(words[2]), int([*words, "0"][3])
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that libraries print must not get between the messages
    try:
        answer_requests(lambda: open_model(kind, file, threads, memory, sys.stdin.buffer), sys.stdin.buffer, target)
    except BrokenPipeError:  # the other process has ended
        return


if __name__ == "__main__":
    main(sys.argv[1:])
