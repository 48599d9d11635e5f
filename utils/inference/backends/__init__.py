"""What can run a model: one file per format, behind :class:`DetectMultiBackend`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import InputError
from utils.inference.backends.pytorch import PyTorchBackend

LOG = logging.getLogger(__name__)


class DetectMultiBackend(nn.Module):
    """A model file ready to use, under the name and with the attributes that scripts for v6.1 know.

    Args:
        weights: ``.pt`` file, or several for an ensemble.
        device: the CPU when left out.
        dnn: without effect, an option of ONNX files.
        data: without effect, a ``.pt`` file knows its class names.

    Attributes:
        stride: the largest, in pixels. names: of the classes. device: where it runs.
        pt: True; jit, onnx, engine and the other formats: False.

    Raises:
        FileNotFoundError: no such file.
        InputError: a suffix other than ``.pt``, or an unreadable file.
    """

    pt = True
    jit = onnx = xml = engine = coreml = saved_model = pb = tflite = edgetpu = tfjs = False

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] = "yolov5s.pt",
        device: torch.device | str | None = None,
        dnn: bool = False,
        data: str | Path | None = None,
    ) -> None:
        super().__init__()
        files = [weights] if isinstance(weights, (str, Path)) else list(weights)
        if not files:
            raise InputError("weights names no file; give a .pt file or several")
        for file in files:
            if Path(file).suffix.lower() != ".pt":
                raise InputError(f"{file}: only .pt files are supported so far, not '{Path(file).suffix}'")
        self.device = torch.device(device or "cpu")
        self.backend = PyTorchBackend(files, self.device)
        self.names, self.stride = self.backend.names, self.backend.stride

    @property
    def model(self) -> nn.Module:
        """The network; ``model.half()`` switches to half precision."""
        return self.backend.model

    @property
    def fp16(self) -> bool:
        return self.backend.fp16

    def forward(
        self, im: Tensor, augment: bool = False, visualize: bool | str | Path = False, val: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor] | None]:
        """Find candidates.

        Args:
            im: [B, 3, H, W] in 0..1, sides multiples of the stride, in the precision of the model.
            augment: look in three views and return the boxes of all.
            visualize: without effect here; ``detect.py --visualize`` writes the maps.
            val: return the raw maps as well (None with ``augment`` or for an ensemble).

        Returns:
            Decoded boxes [B, N, nc + 5] (xywh in pixels of ``im``, objectness, class scores), or (boxes, maps).
        """
        if visualize:
            LOG.warning("visualize has no effect in DetectMultiBackend; use detect.py --visualize")
        decoded, maps = self.backend(im, augment)
        return (decoded, maps) if val else decoded

    def warmup(self, imgsz: Sequence[int] = (1, 3, 640, 640), half: bool = False) -> None:
        """Run once on a blank batch of this shape, on a GPU only: its first run is slow.

        ``half`` is accepted for old scripts; the precision is that of the model.
        """
        if self.device.type == "cuda":
            with torch.no_grad():
                self(torch.zeros(*imgsz, device=self.device, dtype=torch.float16 if self.fp16 else torch.float32))

    def _apply(self, fn: Any, recurse: bool = True) -> DetectMultiBackend:
        super()._apply(fn, recurse)
        self.device = next(self.parameters()).device  # to() and cuda() move the model
        return self


__all__ = ["DetectMultiBackend", "PyTorchBackend"]
