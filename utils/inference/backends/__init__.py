"""Backends that run model files, one module per format, behind :class:`DetectMultiBackend`."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.checkpoint.official import describe_missing
from utils.config.class_names import ClassNames
from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.inference.backends.base import FileBackend, NeedsTrustError
from utils.inference.backends.pytorch import PyTorchBackend

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """A format of exported files.

    Attributes:
        endings: of the names of its files.
        flag: the attribute of DetectMultiBackend that is True for it, as in v6.1.
        module, backend: where the backend is, and its class.
        code: its files are machine code, which cannot be checked.
    """

    endings: tuple[str, ...]
    flag: str
    module: str
    backend: str
    code: bool = False


EXPORTED_FORMATS = (
    Format((".torchscript",), "jit", "torchscript", "TorchScriptBackend"),
    Format((".onnx",), "onnx", "onnx_runtime", "OnnxBackend"),
    Format((".xml", "_openvino_model"), "xml", "openvino", "OpenVINOBackend"),
    Format((".engine",), "engine", "engine", "EngineBackend", code=True),
    Format(("_aoti.pt2",), "aoti", "aoti", "AOTInductorBackend", code=True),  # before the other .pt2
    Format((".pte",), "executorch", "executorch", "ExecuTorchBackend"),
    Format((".pt2",), "pt2", "exported_program", "ExportedProgramBackend"),
    Format((".mlpackage",), "coreml", "coreml", "CoreMLBackend"),
    Format(("_ncnn_model",), "ncnn", "ncnn", "NcnnBackend"),
    Format(("_edgetpu.tflite",), "edgetpu", "tflite", "EdgeTPUBackend", code=True),  # before the shorter ending
    Format((".tflite",), "tflite", "tflite", "TFLiteBackend"),
    Format(("_saved_model",), "saved_model", "tensorflow", "SavedModelBackend"),
    Format((".pb",), "pb", "tensorflow", "FrozenGraphBackend"),
)
DNN = Format((".onnx",), "dnn", "opencv_dnn", "OpenCVBackend")
_CHECKED_CONTENT = ("executorch", "coreml", "tflite", "ncnn")  # files whose content readers of ours check
FLAGS = (*(known.flag for known in EXPORTED_FORMATS), "dnn", "tfjs", "triton")


def format_of(file: str | Path) -> Format | None:
    """Return the format of an exported file by its name, None for a checkpoint.

    Raises:
        InputError: no such format.
    """
    name = Path(file).name.lower()
    if name.endswith(".pt"):
        return None
    for known in EXPORTED_FORMATS:
        if name.endswith(known.endings):
            return known
    endings = [".pt", *(ending for known in EXPORTED_FORMATS for ending in known.endings)]
    raise InputError(f"--weights {file}: not a model file by its name; known are {', '.join(endings)}")


def open_exported(
    file: str | Path,
    device: torch.device,
    dnn: bool = False,
    data: str | Path | None = None,
    trust: bool = False,
    own: bool = False,
) -> FileBackend:
    """Open an exported file. All backends are opened here, so a file that is refused here is never opened.

    Args:
        file: by its name.
        device: where it runs.
        dnn: run an ONNX file by OpenCV.
        data: data yaml with the class names of a file that has none.
        trust: open a file that may run code of its maker, with a warning.
        own: made by this process, so trusted without a warning.

    Raises:
        FileNotFoundError, InputError: no such file, another or a broken format, a package is missing, or ``trust`` is.
    """
    kind = format_of(file)
    if kind is None:
        raise InputError(f"{file}: a checkpoint, not an exported file")
    if dnn and kind.flag != "onnx":
        raise InputError(f"--dnn is for .onnx files; {file} is none")
    path = Path(file)
    if not path.exists():  # before missing packages are reported
        raise FileNotFoundError(describe_missing(path))
    chosen = DNN if dnn else kind
    names = DatasetSpec.load(data).names if data else None
    backend = getattr(importlib.import_module(f"{__name__}.{chosen.module}"), chosen.backend)
    may_run_code = chosen.code or chosen.flag == "jit"
    if chosen.code and not (trust or own):
        raise NeedsTrustError(
            f"{file}: is machine code, which runs with your rights; if you trust its maker, give --trust"
        )
    if may_run_code and trust and not own:
        LOG.warning("--trust: %s is opened with whatever code its maker put into it", file)
    elif chosen.flag in _CHECKED_CONTENT and trust and not own:
        LOG.warning("--trust: %s is opened without a check of its content", file)
    given = {"trust": trust or own} if chosen.flag in ("jit", "onnx", "dnn", "xml", *_CHECKED_CONTENT) else {}
    opened: FileBackend = backend(path, device, names, **given)
    return opened


class DetectMultiBackend(nn.Module):
    """A model file ready to use, under the name and with the attributes that scripts for v6.1 know.

    Args:
        weights: ``.pt`` file, or several for an ensemble; or one exported file: ``.onnx``, ``.torchscript``, ``.pt2``,
            ``_aoti.pt2``, ``.pte``, ``.engine``, ``.mlpackage``, ``.tflite``, ``.pb``, or a folder ``_openvino_model``,
            ``_ncnn_model`` or ``_saved_model``.
        device: default: the CPU.
        dnn: run an ONNX file by OpenCV.
        data: data yaml with the class names of an exported file that has none.
        fp16: half precision, for a ``.pt`` file on a GPU; an exported file has the precision it was made with.
        fuse: fold batch norm into the convolutions.
        trust: open a file that may run code of its maker (AOTInductor, TensorRT, TorchScript beyond plain operations).

    Attributes:
        stride: the largest, in pixels.
        names: of the classes, as list and as mapping.
        device: where it runs.
        pt: True for a ``.pt`` file; jit, onnx, xml, pt2, dnn and the other formats likewise.
        imgsz: height and width of training or export, None if the file does not record them.
        fixed_hw: height and width of the images it takes, None for any.

    Raises:
        FileNotFoundError: no such file.
        InputError: an unknown format, or an unreadable file.
    """

    __module__ = "models.common"  # where scripts import it from
    pt: bool
    jit: bool
    onnx: bool

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] = "yolov5s.pt",
        device: torch.device | str | None = None,
        dnn: bool = False,
        data: str | Path | None = None,
        fp16: bool = False,
        fuse: bool = True,
        trust: bool = False,
    ) -> None:
        super().__init__()
        files = [weights] if isinstance(weights, (str, Path)) else list(weights)
        if not files:
            raise InputError("weights names no file; give a .pt file or several")
        formats = [format_of(file) for file in files]
        exported = next((file for file, kind in zip(files, formats) if kind is not None), None)
        if exported is not None and len(files) > 1:
            raise InputError(f"{exported}: an ensemble is made of .pt files; give an exported file alone")
        self.device = torch.device(device or "cpu")
        self.backend: PyTorchBackend | FileBackend
        if exported is None:
            self.backend = PyTorchBackend(files, self.device, fuse)
            if fp16 and self.device.type == "cpu":
                LOG.warning("fp16 needs a GPU: running in float32")
            elif fp16:
                self.backend.model.half()
        else:
            self.backend = open_exported(exported, self.device, dnn, data, trust)
            if data and list(DatasetSpec.load(data).names) != self.backend.names:
                LOG.warning("%s: its own class names differ from those in %s; its own are used", exported, data)
        kind = formats[0]
        self.pt = kind is None
        for flag in FLAGS:
            setattr(self, flag, kind is not None and (flag == kind.flag or (flag == "dnn" and dnn)))
        self.names = ClassNames(self.backend.names)
        self.stride = int(torch.as_tensor(self.backend.stride).max())
        self.imgsz, self.fixed_hw = self.backend.imgsz, getattr(self.backend, "fixed_hw", None)

    @property
    def model(self) -> nn.Module:
        """The network of a ``.pt`` file, where ``model.half()`` switches to half precision; else the backend."""
        return self.backend.model if isinstance(self.backend, PyTorchBackend) else self.backend

    @property
    def contiguous_images(self) -> bool:
        """Whether it is an exported file, whose images must not be channels-last."""
        return isinstance(self.backend, FileBackend)

    @property
    def own_threads(self) -> bool:
        """Whether another library computes the model in its own threads, see ``utils.core.threads``."""
        return isinstance(self.backend, FileBackend) and self.backend.own_threads

    @property
    def fp16(self) -> bool:
        return self.backend.fp16

    def forward(
        self, im: Tensor, augment: bool = False, visualize: bool | str | Path = False, val: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor] | None]:
        """Predict boxes before NMS.

        Args:
            im: [B, 3, H, W] in 0..1, sides multiples of the stride, in the precision of the model.
            augment: predict three views and return the boxes of all (``.pt`` only).
            visualize: without effect here; ``detect.py --visualize`` writes the feature maps.
            val: also return the raw predictions of each level (None with ``augment``, for an ensemble and for an
                exported file).

        Returns:
            Decoded boxes [B, N, nc + 5] (xywh in pixels of ``im``, objectness, class scores), or (boxes, raw).
        """
        if visualize:
            LOG.warning("visualize has no effect in DetectMultiBackend; use detect.py --visualize")
        decoded, levels = self.backend(im, augment)
        return (decoded, levels) if val else decoded

    def warmup(self, imgsz: Sequence[int] = (1, 3, 640, 640), half: bool = False) -> None:
        """Run once on an empty batch of this shape, on a GPU only: its first run is slow.

        ``half`` is accepted for old scripts; the precision is that of the model.
        """
        if self.device.type == "cuda":
            with torch.no_grad():
                self(torch.zeros(*imgsz, device=self.device, dtype=torch.float16 if self.fp16 else torch.float32))

    def _apply(self, fn: Any, recurse: bool = True) -> DetectMultiBackend:
        super()._apply(fn, recurse)
        for parameter in self.parameters():  # to() and cuda() move a model, but no exported file
            self.device = parameter.device
            break
        return self


__all__ = [
    "EXPORTED_FORMATS",
    "DetectMultiBackend",
    "FileBackend",
    "Format",
    "PyTorchBackend",
    "format_of",
    "open_exported",
]
