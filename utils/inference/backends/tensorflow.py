"""TensorFlow's SavedModel (folder ``<name>_saved_model``) and frozen graph (``.pb``), and what LiteRT shares with them.

As in v6.1, images are [B, H, W, 3] and boxes are fractions of the image; a separate process runs each file.
"""

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
from utils.inference.backends.base import FileBackend, checking_content, reading
from utils.inference.backends.metadata import METADATA_FILE, Metadata, as_text, from_json, from_text
from utils.inference.venvs import TENSORFLOW, Stack


class TensorFlowBackend(FileBackend):
    """One file, on the CPU.

    Args:
        venvs: folder of the virtual environments; empty: the default.
        trust: do not check the content of a file.
    """

    kind: ClassVar[str]  # name for the worker
    what: ClassVar[str]  # name for messages
    stack: ClassVar[Stack] = TENSORFLOW

    own_threads = True

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, venvs: str = "", trust: bool = False
    ) -> None:
        python = self.stack.require(str(file), venvs)
        with checking_content(file, self.what):
            content = self.content_of(file, trust)
            text = self.read_metadata(file)
        try:
            model = RemoteModel(python, self.kind, file, torch.get_num_threads(), content=content)
        except InputError as error:
            raise InputError(f"{file}: cannot be read as {self.what}: {error}") from error
        text = text or as_text(_plain(file, model.about.get("about", "")))
        super().__init__(_metadata(text, file, names, model.about), file, device)
        self.model = model

    @staticmethod
    def content_of(file: Path, trust: bool) -> bytes | None:
        """Return the content of a file after checking it, unless ``trust``; None if the worker process checks it.

        Raises:
            DamagedError, UnknownPartError: it is damaged, or more than a network.
        """
        return None

    @staticmethod
    def read_metadata(file: Path) -> Mapping[str, str]:
        """Return the metadata, as text by key, if it can be read without TensorFlow."""
        return {}

    def run(self, images: Tensor) -> Sequence[Any]:
        rows = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy(), dtype=np.float32)
        try:
            boxes, *others = self.model.run([rows])
        except InputError as error:
            raise InputError(f"{self.file}: cannot be run: {error}") from error
        if boxes.ndim != 3:
            return [boxes, *others]  # no boxes; the caller raises the error
        height, width = images.shape[2:]
        scale = np.ones(boxes.shape[2], np.float32)
        scale[:4] = [width, height, width, height][: len(scale)]
        return [boxes * scale, *others]


def _metadata(text: Mapping[str, str], file: Path, names: Sequence[str] | None, about: Mapping[str, Any]) -> Metadata:
    """Return the metadata of a file.

    Args:
        text: of the file.
        file: for messages.
        names: from a data yaml.
        about: inputs and outputs of its model.

    Raises:
        InputError: its input is anything but one batch of images.
    """
    inputs = about["inputs"]
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] != 3:
        raise InputError(f"{file}: takes {inputs}, expected images [batch, height, width, 3]: no YOLOv5 model")
    batch, height, width, channels = inputs[0]
    outputs = about["outputs"]
    last = outputs[0][-1] if outputs and outputs[0] else -1
    return from_text(text, file, names, (batch, channels, height, width), last - 5 if last > 5 else None)


def _plain(file: Path, text: str) -> dict[str, Any]:
    with reading(file, "a model with metadata"):
        return dict(json.loads(text)) if text else {}


class SavedModelBackend(TensorFlowBackend):
    """One folder. A graph that does more than compute is refused."""

    kind = "saved_model"
    what = "a SavedModel"

    @staticmethod
    def read_metadata(file: Path) -> Mapping[str, str]:
        about = file / METADATA_FILE
        return from_json(about.read_bytes()) if about.is_file() else {}


class FrozenGraphBackend(TensorFlowBackend):
    """One ``.pb`` file with its metadata in a node. A graph that does more than compute is refused."""

    kind = "pb"
    what = "a frozen graph"
