"""OpenVINO, for Intel processors: a folder with the graph (``.xml``) and the weights (``.bin``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.export.onnx import to_onnx
from utils.export.quantize import quantized

_OPSET = 17  # by the exporter that also takes other formats' old opsets; all of its operators are known to OpenVINO


class OpenVINOExporter(Exporter):
    """A folder ``<name>_openvino_model``; ``--half`` stores the weights in half precision, images stay float32."""

    name = "openvino"
    ending = "_openvino_model"
    packages: ClassVar[dict[str, str]] = {"openvino": "openvino", "onnx": "onnx"}

    def write(self, job: ExportJob, path: Path) -> list[str]:
        import openvino

        half = job.options.half
        job = replace(job, options=replace(job.options, half=False, opset=_OPSET))
        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        path.mkdir()
        through = path / "through.onnx"
        exact = to_onnx(network, job, free, through)
        if job.options.int8:
            through.write_bytes(quantized(exact, job, path.parent).SerializeToString())
        model = openvino.convert_model(through)
        for key, value in job.about(free, network).to_text().items():
            model.set_rt_info(value, ["model_info", key])
        openvino.save_model(model, path / f"{job.stem.name}.xml", compress_to_fp16=half)
        through.unlink()
        notes = {"8-bit convolutions": job.options.int8, "weights in half precision": half}
        return [note for note, holds in notes.items() if holds]
