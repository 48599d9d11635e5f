"""The base of all backends of exported files: input sizes, batches, precision, and shape of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.core.boxes import xyxy2xywh
from utils.core.errors import InputError, first_line
from utils.core.names import counted
from utils.core.threads import limit_torch_threads
from utils.inference.backends.metadata import Metadata

_LONGEST = 300  # characters of a message of a library


class NeedsTrustError(InputError):
    """A file that may run code of its maker, opened without ``--trust``."""


class UnknownPartError(ValueError):
    """A file with a part that is not on the closed list of its format."""


@contextmanager
def checking_content(file: Path, kind: str) -> Iterator[None]:
    """As :func:`reading`, for the check of the content of a file before a library opens it.

    Raises:
        NeedsTrustError: a part of it is not on the list.
        InputError: not one of its kind.
    """
    with reading(file, kind):
        try:
            yield
        except UnknownPartError as error:
            reason = f"refused, {error}"[:_LONGEST]
            raise NeedsTrustError(f"{file}: {reason}; if you trust its maker, give --trust") from error


@contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """Convert any exception of a library on a file that it cannot read to one line.

    Raises:
        InputError: not a file of this kind.
    """
    with _in_one_line(file, f"cannot be read as {kind}"):
        yield


@contextmanager
def _in_one_line(file: Path, problem: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if str(file) in str(error):
            raise
        raise type(error)(f"{file}: {error}") from error
    except Exception as error:  # each library has its own, down to bare RuntimeError
        raise InputError(f"{file}: {problem}: {first_line(error)[:_LONGEST]}") from error


class FileBackend(nn.Module):
    """An exported file, used like a model: ``decoded, _ = backend(images)``.

    A file with a fixed batch size takes any number of images: they are split into such batches, and the last one is
    filled with empty images.

    Args:
        info: metadata of the file.
        file: for messages.
        device: where it runs.

    Attributes:
        contiguous_images: images are arrays in the order [B, 3, H, W].
        own_threads: the library computes on the CPU in its own threads, or in another process.
    """

    contiguous_images = True
    own_threads = False

    def __init__(self, info: Metadata, file: Path, device: torch.device) -> None:
        super().__init__()
        if info.task != "detect":
            raise InputError(f"{file}: is for the task '{info.task}', expected a detection model")
        self.info, self.file, self.device = info, file, device
        self.names = list(info.names)
        self.nc = len(self.names)
        self.stride = torch.tensor([float(info.stride)])
        self.fp16 = info.half
        self.fixed_hw, self.imgsz = info.fixed_hw, info.imgsz

    def run(self, images: Tensor) -> Sequence[Any]:
        """[B, 3, H, W] in the precision and size of the file -> its outputs, tensors or arrays."""
        raise NotImplementedError

    def use_bfloat16(self) -> bool:
        """Compute in bfloat16 on the CPU from now on; False where that is not possible."""
        return False

    def forward(self, images: Tensor, augment: bool = False) -> tuple[Tensor, None]:
        """[B, 3, H, W] in 0..1 -> (decoded boxes [B, N, nc + 5], None).

        Raises:
            InputError: a size the file does not take, ``augment``, or an output of another form.
        """
        if augment:
            raise InputError(f"{self.file}: --augment needs a .pt file")
        if self.info.raw_levels:
            raise InputError(f"{self.file}: exported with --train, so it returns no boxes; export it without")
        self._check_size(images)
        images = images.to(torch.float16 if self.fp16 else torch.float32)
        batch = self.info.fixed_batch
        with limit_torch_threads(self):
            if batch is None or batch == len(images):
                output = self._run(images)
            else:
                output = torch.cat([self._run(_filled(part, batch))[: len(part)] for part in images.split(batch)])
            return self._as_candidates(output), None

    def train(self, mode: bool = True) -> FileBackend:
        """Change nothing: a file is in evaluation mode, and some raise an error here."""
        self.training = False
        return self

    def _run(self, images: Tensor) -> Tensor:
        with _in_one_line(self.file, f"cannot be run on images {list(images.shape)}"):
            output = torch.as_tensor(self.run(images)[0]).to(images.device).float()
        width = 6 if self.info.nms else self.nc + 5
        if output.dim() != 3 or output.shape[0] != len(images) or output.shape[2] != width:
            raise InputError(
                f"{self.file}: expected boxes [{len(images)}, any, {width}] for {counted(self.nc, 'class')}, got "
                f"{list(output.shape)}: it is no YOLOv5 detection model, or one for other classes"
            )
        return output

    def _check_size(self, images: Tensor) -> None:
        free, given = self.info.dynamic, images.shape[2:]
        for axis, side, own in zip(("height", "width"), given, self.info.imgsz):
            if axis not in free and side != own:
                raise InputError(f"{self.file}: takes images of {axis} {own}, got {side}; export it with --dynamic")

    def _as_candidates(self, output: Tensor) -> Tensor:
        """Convert detections of a file with NMS inside to candidates that NMS does not change again."""
        if not self.info.nms:
            return output
        boxes, confidence, kind = xyxy2xywh(output[..., :4]), output[..., 4:5], output[..., 5].long()
        scores = F.one_hot(kind.clamp(0, self.nc - 1), self.nc).to(output.dtype)
        return torch.cat([boxes, confidence, scores], dim=-1)


def _filled(images: Tensor, batch: int) -> Tensor:
    """Add empty images up to a whole batch."""
    return images if len(images) == batch else F.pad(images, (0, 0, 0, 0, 0, 0, 0, batch - len(images)))
