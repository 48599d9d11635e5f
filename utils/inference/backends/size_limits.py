"""Files whose free axes have an upper limit: any number of images in several calls, but none above the size limit."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.inference.backends.base import FileBackend
from utils.inference.backends.metadata import Metadata


class BoundedBackend(FileBackend):
    """A file with a limit for the number and size of images in one call.

    Args:
        info, file, device: as for ``FileBackend``.
        most: upper limit of images, height and width, for free axes.
    """

    def __init__(self, info: Metadata, file: Path, device: torch.device, most: tuple[int, int, int]) -> None:
        super().__init__(info, file, device)
        self.most = most

    def _run(self, images: Tensor) -> Tensor:
        parts = images.split(self.most[0] if "batch" in self.info.dynamic else len(images))
        return torch.cat([super(BoundedBackend, self)._run(part) for part in parts])

    def _check_size(self, images: Tensor) -> None:
        super()._check_size(images)
        for axis, side, most in zip(("height", "width"), images.shape[2:], self.most[1:]):
            if axis in self.info.dynamic and side > most:
                raise InputError(
                    f"{self.file}: takes images up to {self.most[1]} x {self.most[2]}, got a {axis} of {side}; "
                    "give a smaller --imgsz here, or a larger one to export.py"
                )
