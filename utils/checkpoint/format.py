"""The checkpoint file: one dict of plain types and tensors, read without executing anything.

``torch.load(weights_only=True)`` with an empty allow-list opens it. Official YOLOv5 files, which are pickled modules,
are recognised and read by :mod:`utils.checkpoint.legacy`, again without running foreign code.
"""

from __future__ import annotations

import datetime
import io
import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.yolo import Model
from utils.checkpoint.legacy import read_legacy
from utils.errors import InputError, first_line
from utils.files import write_atomic

LOG = logging.getLogger(__name__)
FORMAT = "yolov5-dynamic"
VERSION = 1


@dataclass(kw_only=True)
class Checkpoint:
    """Everything a run needs to go on, or a model to be used.

    ``model`` and ``ema`` are state dicts; a finished, stripped file has only ``model`` (the averaged weights, half
    precision) and no optimizer. ``train_state`` holds epoch, best fitness, patience and the like.
    """

    model_yaml: dict[str, Any]
    nc: int
    names: list[str]
    stride: list[float]
    model: dict[str, Tensor]
    ema: dict[str, Tensor] | None = None
    ema_updates: int = 0
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    train_state: dict[str, Any] = field(default_factory=dict)
    hyp: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    rng: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    origin: str = FORMAT  # or "official", for a converted YOLOv5 file

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averaged weights when there are any, else the model's own."""
        return self.ema if self.ema is not None else self.model

    @property
    def resumable(self) -> bool:
        return self.optimizer is not None


def plain(value: Any) -> Any:
    """``value`` with paths, numpy scalars, arrays and tuples turned into types the safe loader accepts."""
    if isinstance(value, Mapping):
        return {(k if isinstance(k, int) else str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        return value.detach().contiguous()  # a file does not depend on the layout that was fastest to train in
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)  # a subclass (torch's version string, an enum) would need an allow-list
    raise TypeError(f"a checkpoint holds plain types only, not {type(value).__name__}")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: the file at ``path`` is always either the old or the new one, whole."""
    content = {f.name: plain(getattr(checkpoint, f.name)) for f in fields(checkpoint)}
    content |= {"format": FORMAT, "format_version": VERSION}
    content["date"] = checkpoint.date or datetime.datetime.now().isoformat(timespec="seconds")
    content["versions"] = checkpoint.versions or plain({"torch": torch.__version__, "numpy": np.__version__})
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read our own file, or an official YOLOv5 one, to the CPU. No code from the file runs.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a checkpoint, damaged, of a newer format, or naming classes that are not accepted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--weights {path}: no such file (looked at {path.absolute()}); nothing is downloaded")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a checkpoint, or damaged (a .pt file is a zip archive and this is not one)")
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if unknown:
            return Checkpoint(**read_legacy(path, unknown))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{path}: cannot be read as a checkpoint: {first_line(error)}") from error
    return _from_content(content, path)


def _from_content(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of this program, nor an official YOLOv5 file (no model yaml in it)")
    if content["format_version"] > VERSION:
        raise InputError(
            f"{path}: format {content['format_version']} is newer than this program's ({VERSION}); update it"
        )
    known = {f.name for f in fields(Checkpoint)}
    return Checkpoint(**{k: v for k, v in content.items() if k in known})


def build_model(checkpoint: Checkpoint, source: str) -> Model:
    """The model of a checkpoint, in float32 on the CPU, with the averaged weights, names and temperature it carries."""
    model = Model({**checkpoint.model_yaml, "yaml_file": source}, nc=checkpoint.nc)
    weights = {k: v.float() if v.is_floating_point() else v for k, v in checkpoint.weights.items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise InputError(f"{source}: its tensors do not fit its own model yaml: {error}") from error
    model.names = list(checkpoint.names)
    return model


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[Model, Checkpoint]:
    """Checkpoint file -> model in evaluation mode on ``device``, and the checkpoint itself."""
    checkpoint = load_checkpoint(path)
    return build_model(checkpoint, str(path)).to(device).eval(), checkpoint


def strip_checkpoint(path: Path) -> float:
    """Turn a resumable file into a small one for use: averaged weights, half precision. Returns the size in MB."""
    checkpoint = load_checkpoint(path)
    exact = ("temperature", "anchors")  # few values whose rounding would be seen
    checkpoint.model = {
        k: v.half() if v.is_floating_point() and k.rpartition(".")[2] not in exact else v
        for k, v in checkpoint.weights.items()
    }
    checkpoint.ema = checkpoint.optimizer = checkpoint.scaler = None
    checkpoint.rng = {}
    checkpoint.train_state.pop("gradients", None)  # that wait for a step; as large as the weights
    save_checkpoint(path, checkpoint)
    return path.stat().st_size / 1e6
