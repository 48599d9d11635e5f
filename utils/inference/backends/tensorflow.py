"""What the formats of the TensorFlow family have in common, as in v6.1: images as rows of pixels with their colours
together [B, H, W, 3], boxes as shares of the image; each is run by a process of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.inference.backend_client import RemoteModel
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.metadata import Metadata, as_text, from_text
from utils.inference.venvs import Stack

ABOUT = "about.json"  # in the folder of a SavedModel, and in the archive at the end of a .tflite file


class TensorFlowBackend(FileBackend):
    """One file, on the CPU.

    Args:
        venvs: folder of the virtual environments; empty: the usual one.
    """

    kind: ClassVar[str]  # what the worker calls it
    what: ClassVar[str]  # for messages
    stack: ClassVar[Stack]

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None, venvs: str = "") -> None:
        python = self.stack.require(str(file), venvs)
        with reading(file, self.what):
            text = self.said_in(file)
        try:
            model = RemoteModel(python, self.kind, file, torch.get_num_threads())
        except InputError as error:
            raise InputError(f"{file}: cannot be read as {self.what}: {error}") from error
        text = text or as_text(_plain(file, model.about.get("about", "")))
        super().__init__(about_of(text, file, names, model.about), file, device)
        self.model = model

    @staticmethod
    def said_in(file: Path) -> Mapping[str, str]:
        """What the file says about itself where that can be read without TensorFlow, as text by key."""
        return {}

    def run(self, images: Tensor) -> Sequence[Any]:
        rows = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy(), dtype=np.float32)
        try:
            boxes, *others = self.model.run([rows])
        except InputError as error:
            raise InputError(f"{self.file}: cannot be run: {error}") from error
        if boxes.ndim != 3:
            return [boxes, *others]  # no boxes, as will be said
        height, width = images.shape[2:]
        scale = np.ones(boxes.shape[2], np.float32)
        scale[:4] = [width, height, width, height][: len(scale)]
        return [boxes * scale, *others]


def about_of(text: Mapping[str, str], file: Path, names: Sequence[str] | None, about: Mapping[str, Any]) -> Metadata:
    """What is known of the file.

    Args:
        text: what it says itself. about: what its model takes and gives.

    Raises:
        InputError: it takes something else than one batch of images.
    """
    inputs = about["inputs"]
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] != 3:
        raise InputError(f"{file}: takes {inputs}, expected images [batch, height, width, 3]: no YOLOv5 model")
    batch, height, width, colours = inputs[0]
    outputs = about["outputs"]
    last = outputs[0][-1] if outputs and outputs[0] else -1
    return from_text(text, file, names, (batch, colours, height, width), last - 5 if last > 5 else None)


def _plain(file: Path, said: str) -> dict[str, Any]:
    with reading(file, "a model that says what it is"):
        return dict(json.loads(said)) if said else {}
