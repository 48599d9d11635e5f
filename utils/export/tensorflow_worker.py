"""The program that makes files of the TensorFlow family, in an environment that has the packages for it.

    python converter.py '{"to": "tflite", "source": "a.pt2", "target": "a.tflite"}'

It imports nothing of this repository; :mod:`utils.export.tflite` and :mod:`utils.export.tensorflow` start it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

ABOUT_NODE = "yolov5_dynamic_about"  # the node of a frozen graph that holds what is to be said about it


def to_tflite(work: dict[str, Any]) -> None:
    """A ``.pt2`` program (``source``) as a TFLite file (``target``); ``weights`` are float32, float16 or int8."""
    import litert_torch
    import torch

    program = torch.export.load(work["source"])
    images = program.example_inputs[0]
    litert_torch.convert(program.module(), images).export(work["target"])
    if work["weights"] != "float32":
        _shrink(Path(work["target"]), work["weights"])


def _shrink(file: Path, weights: str) -> None:
    """Store the weights of a TFLite file as float16, or as int8 with activations rounded while it runs."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.quantizer import AlgorithmName

    smaller, kinds = quantizer.Quantizer(str(file)), qtyping.TFLOperationName
    for kind in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
        if weights == "int8":
            smaller.add_dynamic_config(".*", kind, 8)
        else:
            smaller.add_weight_only_config(".*", kind, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    result = smaller.quantize()
    file.unlink()
    result.export_model(str(file))


def to_saved_model(work: dict[str, Any]) -> None:
    """An ONNX file (``source``) as a SavedModel (folder ``target``).

    The converter has two ways; the second takes four times as long and knows more operations.
    """
    import onnx2tf

    paths = {"input_onnx_file_path": work["source"], "output_folder_path": work["target"]}
    quiet = {"non_verbose": True, "verbosity": "error"}
    try:
        onnx2tf.convert(**paths, **quiet, flatbuffer_direct_output_saved_model=True)
    except Exception:  # whatever it does not know
        shutil.rmtree(work["target"], ignore_errors=True)
        onnx2tf.convert(**paths, **quiet, tflite_backend="tf_converter", output_signaturedefs=True)
    for left in Path(work["target"]).iterdir():  # TFLite files and what belongs to them
        if left.is_file() and left.suffix != ".pb":
            left.unlink()


def to_frozen_graph(work: dict[str, Any]) -> None:
    """An ONNX file (``source``) as a frozen graph (``target``) in which ``about`` stands."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    folder = f"{work['target']}_saved_model"
    to_saved_model({**work, "target": folder})
    frozen = convert_variables_to_constants_v2(tf.saved_model.load(folder).signatures["serving_default"])
    graph = frozen.graph.as_graph_def()
    with tf.Graph().as_default() as extra:
        tf.constant(work["about"], name=ABOUT_NODE)
    graph.node.extend(extra.as_graph_def().node)
    Path(work["target"]).write_bytes(graph.SerializeToString())
    shutil.rmtree(folder)


def _end_with_parent() -> None:
    while os.read(0, 1):  # not by sys.stdin, whose lock would be held when the interpreter ends
        continue
    os._exit(1)  # the other end is closed


def main(work: dict[str, Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    {"tflite": to_tflite, "saved_model": to_saved_model, "pb": to_frozen_graph}[work["to"]](work)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
