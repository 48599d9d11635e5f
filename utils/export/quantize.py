"""8-bit ONNX graphs: the convolutions of backbone and neck, with scales measured on images of the data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.export.calibration import calibration_batches
from utils.export.export_job import ExportJob

LEAST_OPSET, MOST_OPSET = 13, 17  # from a scale per channel on; up to the exporter that keeps the layers' names


def quantized(model: Any, job: ExportJob, folder: Path) -> Any:
    """``model`` with 8-bit convolutions.

    The head stays as it is, since scores and pixels are channels of the same output, and so does the attention of
    dynamic layers, which is cheap and affects everything behind it.

    Weights use seven of the eight bits: processors without 8-bit units (before AVX512-VNNI) add two products in 16
    bits, which overflow otherwise. Ranges of activations are moving averages over the images, since a few outliers
    make all other values coarse. With the official yolov5n on tiny COCO the two together lose 0.001 of mAP instead of
    0.070.

    Args:
        model: ``onnx.ModelProto`` of the older exporter.
        folder: for files on the way.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        """Batches under the name of the graph's input."""

        def __init__(self, name: str, batches: Iterator[Tensor]) -> None:
            self.name, self.batches = name, batches

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {self.name: batch.cpu().numpy()}

    before, after = folder / "float.onnx", folder / "int8.onnx"
    constants_to_initializers(model)
    onnx.save(model, before)
    quantize_static(
        before,
        after,
        Images(model.graph.input[0].name, calibration_batches(job)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept_exact(model, len(job.model.model) - 1),
        reduce_range=True,
        extra_options={"CalibMovingAverage": True},
    )
    return onnx.load(after)


def constants_to_initializers(model: Any) -> None:
    """Move the values of Constant nodes, such as stacked kernels, to the initializers, where a kernel is expected."""
    left = []
    for node in model.graph.node:
        value = next((entry.t for entry in node.attribute if entry.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            left.append(node)
            continue
        value.name = node.output[0]
        model.graph.initializer.append(value)
    del model.graph.node[:]
    model.graph.node.extend(left)


def kept_exact(model: Any, head: int) -> list[str]:
    """Names of the convolutions of the head (module number ``head``) and of the attentions."""
    places = (f"/model.{head}/", "/attention/")
    return [node.name for node in model.graph.node if node.op_type == "Conv" and any(p in node.name for p in places)]
