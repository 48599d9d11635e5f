"""ONNX files (``.onnx``) run by the DNN module of OpenCV (``--dnn``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.core.errors import InputError, first_line
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.checked_graph import read_onnx, run_in_sandbox
from utils.inference.backends.metadata import from_text


class OpenCVBackend(FileBackend):
    """One ``.onnx`` file of fixed sizes, on the CPU."""

    own_threads = True

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        with reading(file, "an ONNX file"):
            content, model = read_onnx(file)
            sides = [dim.dim_value or None for dim in model.graph.input[0].type.tensor_type.shape.dim]
            width = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim][-1]
        text = {entry.key: entry.value for entry in model.metadata_props}
        info = from_text(text, file, names, sides, width - 5 if width > 5 else None)
        if info.dynamic or info.half or info.nms:
            what = "free axes" if info.dynamic else "half precision" if info.half else "NMS inside"
            raise InputError(f"{file}: OpenCV takes no file with {what}; export it without --dynamic, --half and --nms")
        with reading(file, "an ONNX file by OpenCV"):
            if not trust:
                run_in_sandbox("opencv", {"model.onnx": content}, sides)
            net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
        super().__init__(info, file, device)
        self.net = net

    def run(self, images: Tensor) -> Sequence[Any]:
        self.net.setInput(images.cpu().numpy())
        try:
            return [self.net.forward()]
        except cv2.error as error:
            raise InputError(f"{self.file}: OpenCV cannot run it: {first_line(error)}") from error
