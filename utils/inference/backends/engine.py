"""TensorRT engines (``.engine``), on the kind of GPU they were made for.

Written for TensorRT 10 and 11. Tested with a stand-in for the package; it has never run on a GPU.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.core.packages import import_optional
from utils.inference.backends.base import reading
from utils.inference.backends.metadata import KEY, Metadata, as_text, from_text
from utils.inference.backends.size_limits import BoundedBackend

LOG = logging.getLogger(__name__)
_NUMBER, _LONGEST = 4, 1 << 20  # bytes of the length in front of the metadata; most bytes of the metadata


class EngineBackend(BoundedBackend):
    """One ``.engine`` file. TensorRT refuses host code in it unless that is allowed, which it is not here."""

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None) -> None:
        check_device(file, device)
        tensorrt = import_optional("tensorrt", "tensorrt", f"{file}")
        errors: list[str] = []
        with reading(file, "a TensorRT engine"), current_gpu(device):
            text, plan = split_engine(file.read_bytes())
            runtime = tensorrt.Runtime(create_logger(tensorrt, errors))
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise ValueError(errors[0] if errors else "made by another version or for another GPU")
            images, *outputs = engine_ports(tensorrt, engine)
            context = engine.create_execution_context()
        shape, width = images.shape, outputs[0].shape[-1]
        info = from_text(text, file, names, shape, width - 5 if width > 5 else None)
        ends = list(engine.get_tensor_profile_shape(images.name, 0)[2]) if min(shape) < 0 else shape
        info = replace(info, half=images.dtype is torch.float16)
        super().__init__(info, file, device, (ends[0], ends[2], ends[3]))
        self.images, self.outputs, self.errors = images, outputs, errors
        self.engine, self.context = (runtime, engine), context

    def run(self, images: Tensor) -> Sequence[Any]:
        images = images.to(self.device).contiguous()
        with current_gpu(self.device) as stream:
            done = self.context.set_input_shape(self.images.name, tuple(images.shape))
            self.context.set_tensor_address(self.images.name, images.data_ptr())
            results = []
            for port in self.outputs:
                shape = tuple(self.context.get_tensor_shape(port.name)) if done else (0,)
                results.append(torch.empty(shape, dtype=port.dtype, device=self.device))
                self.context.set_tensor_address(port.name, results[-1].data_ptr())
            if not (done and self.context.execute_async_v3(stream)):
                reason = self.errors[-1] if self.errors else f"not with images {list(images.shape)}"
                raise InputError(f"{self.file}: TensorRT cannot run it: {reason}")
        return results


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its shape (-1 where an axis is free) and its type."""

    name: str
    shape: list[int]
    dtype: torch.dtype


def engine_ports(tensorrt: Any, engine: Any) -> list[Port]:
    """Return the input and then the outputs of an engine.

    Raises:
        ValueError: other than one input and at least one output, or of types that no detection model has.
    """
    types = {tensorrt.DataType.FLOAT: torch.float32, tensorrt.DataType.HALF: torch.float16}
    inputs: list[Port] = []
    outputs: list[Port] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name)
        if kind not in types:
            raise ValueError(f"'{name}' is of the type {kind}, expected float32 or float16")
        port = Port(name, [int(side) for side in engine.get_tensor_shape(name)], types[kind])
        (inputs if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT else outputs).append(port)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not outputs:
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs, expected images and boxes")
    return inputs + outputs


def check_device(file: Path, device: torch.device) -> None:
    """Raise InputError: not a GPU."""
    if device.type != "cuda":
        raise InputError(f"{file}: TensorRT runs on a GPU; give --device 0")


@contextmanager
def current_gpu(device: torch.device) -> Iterator[int]:
    """Make ``device`` the current GPU, and give the handle of its current stream."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream


def create_logger(tensorrt: Any, errors: list[str], level: int = logging.DEBUG) -> Any:
    """Return a logger for TensorRT: errors are appended to ``errors``, all messages are logged."""

    class Logger(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR):
                errors.append(message.strip())
            LOG.log(level, "TensorRT: %s", message)

    return Logger()


def add_metadata(info: Metadata, plan: bytes) -> bytes:
    """Return the content of a file: length of the metadata in four bytes, the metadata as JSON, the engine."""
    text = json.dumps(info.to_plain()).encode()
    return len(text).to_bytes(_NUMBER, "little") + text + plan


def split_engine(content: bytes) -> tuple[dict[str, str], bytes]:
    """Return the metadata in front of an engine, empty for an engine without it, and the engine itself."""
    length = int.from_bytes(content[:_NUMBER], "little")
    end = _NUMBER + length
    if 0 < length <= _LONGEST and end <= len(content):
        try:
            values = json.loads(content[_NUMBER:end])
        except ValueError:
            return {}, content
        if isinstance(values, dict):
            return (as_text(values) if KEY in values else _foreign_text(values)), content[end:]
    return {}, content


def _foreign_text(values: dict[str, Any]) -> dict[str, str]:
    """Convert metadata of another program to Python literals; JSON has made text of the class indices."""
    names = values.get("names")
    if isinstance(names, dict):
        names = {int(number): name for number, name in names.items()}
    return {key: str(value) for key, value in {**values, "names": names}.items() if value is not None}
