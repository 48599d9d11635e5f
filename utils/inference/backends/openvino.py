"""OpenVINO models: a folder ``<name>_openvino_model`` or the ``.xml`` in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.core.packages import import_optional
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.checked_graph import read_openvino, run_in_sandbox
from utils.inference.backends.metadata import KEY, from_text


@lru_cache(maxsize=1)
def _core(openvino: Any) -> Any:
    """Return the one Core of this process.

    The plugin of each Core sets a stack for signal handlers and restores the former one when it is deleted. If two are
    deleted in the order of their creation, the second restores a deleted stack, and the next signal that Python handles
    (Ctrl-C, the end of a worker) is a segmentation fault.
    """
    return openvino.Core()


class OpenVINOBackend(FileBackend):
    """One model, on the CPU, in float32 until :meth:`use_bfloat16`.

    Args:
        trust: skip the run in a sandbox.
    """

    own_threads = True

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        openvino = import_optional("openvino", "openvino", f"{file}")
        with reading(file, "an OpenVINO model"):
            graph, weights = read_openvino(xml_of(file))
            if not trust:
                run_in_sandbox("openvino", {"model.xml": graph, "model.bin": weights}, sides_of(graph))
            model = _core(openvino).read_model(model=graph, weights=weights)
            # Otherwise the CPU computes in bfloat16 where it can, and the boxes differ.
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            compiled = _core(openvino).compile_model(model, "CPU", settings)
            sides = [dim.get_length() if dim.is_static else None for dim in model.inputs[0].partial_shape]
            last = model.outputs[0].partial_shape[-1]
        values = model.get_rt_info(["model_info"]).value if model.has_rt_info(["model_info"]) else {}
        text = {key: str(value.astype(str) if hasattr(value, "astype") else value) for key, value in values.items()}
        classes = last.get_length() - 5 if last.is_static and last.get_length() > 5 else None
        info = from_text(text if KEY in text else {}, file, names, sides, classes)
        super().__init__(info, file, device)
        self.request = compiled.create_infer_request()
        self._core, self._network, self._settings = _core(openvino), model, settings

    def use_bfloat16(self) -> bool:
        """Compute in bfloat16 from now on, if the processor has it; the answer says whether it does."""
        if "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return False
        if self._settings["INFERENCE_PRECISION_HINT"] != "bf16":
            self._settings["INFERENCE_PRECISION_HINT"] = "bf16"
            self.request = self._core.compile_model(self._network, "CPU", self._settings).create_infer_request()
        return True

    def run(self, images: Tensor) -> Sequence[Any]:
        # The outputs are copied: their memory is used again in the next run.
        return list(self.request.infer([images.cpu().numpy()], share_inputs=True).values())


def sides_of(graph: bytes) -> list[int | None]:
    """Return the sides of the input that a graph declares, None where any fits."""
    inputs = [layer for layer in ElementTree.fromstring(graph).iter("layer") if layer.get("type") == "Parameter"]
    ports = [dim.text for layer in inputs[:1] for dim in layer.findall("./output/port/dim")]
    return [int(text) if text and text.isdecimal() else None for text in ports]


def xml_of(file: Path) -> Path:
    """Return the ``.xml`` of a model given by this file or by its folder.

    Raises:
        InputError: not one ``.xml`` in the folder.
    """
    if not file.is_dir():
        return file
    files = sorted(file.glob("*.xml"))
    if len(files) != 1:
        raise InputError(f"{file}: expected a folder with one .xml in it, found {len(files)}")
    return files[0]
