"""ONNX files (``.onnx``) run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.core.packages import import_optional
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.checked_graph import read_onnx, run_in_sandbox
from utils.inference.backends.metadata import from_text

_FLOAT16 = 10  # number of this type in ONNX files
_SILENT = 4  # fatal errors only: others are raised


class OnnxBackend(FileBackend):
    """One ``.onnx`` file; on a GPU where the installed runtime has one.

    Args:
        trust: skip the run in a sandbox.
    """

    own_threads = True

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        runtime = import_optional("onnxruntime", "onnxruntime", f"{file}")
        settings = runtime.SessionOptions()
        settings.log_severity_level = _SILENT
        settings.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait actively within a run make it faster, but between two runs they slow down the other steps.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        there = runtime.get_available_providers()
        wanted = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
        with reading(file, "an ONNX file"):
            content, described = read_onnx(file)
            if not trust:
                kind = described.graph.input[0].type.tensor_type
                sides = [dim.dim_value or None for dim in kind.shape.dim]
                run_in_sandbox("onnx", {"model.onnx": content}, sides, kind.elem_type == _FLOAT16)
            session = runtime.InferenceSession(content, settings, providers=[p for p in wanted if p in there])
            taken = session.get_inputs()[0]
            info = from_text(
                session.get_modelmeta().custom_metadata_map,
                file,
                names,
                taken.shape,
                _class_count(session.get_outputs()),
            )
        super().__init__(replace(info, half="float16" in taken.type), file, device)
        self.session, self.input = session, taken.name

    def run(self, images: Tensor) -> Sequence[Any]:
        outputs: Sequence[Any] = self.session.run(None, {self.input: images.cpu().numpy()})
        return outputs


def _class_count(outputs: Sequence[Any]) -> int | None:
    """Return the number of classes by the declared width of the first output, None if it has none."""
    width = outputs[0].shape[-1] if outputs and outputs[0].shape else None
    return width - 5 if isinstance(width, int) and width > 5 else None
