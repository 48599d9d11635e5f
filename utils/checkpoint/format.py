"""The checkpoint file: one dict of plain types and tensors, read without executing anything.

``torch.load(weights_only=True)`` opens it, after :mod:`utils.checkpoint.archive` has looked at its records and sizes.
Official YOLOv5 files, which are pickled modules, are recognised and read by :mod:`utils.checkpoint.legacy`, again
without running foreign code.
"""

from __future__ import annotations

import datetime
import io
import logging
import math
import types
import zipfile
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from models.dynamic import attention_layers
from models.limits import bounded_construction
from models.yolo import Model
from utils.checkpoint.archive import PICKLE, PLAIN_NAMES, check_values, load_pickle, names_in, read_records
from utils.checkpoint.foreign import by_content
from utils.checkpoint.legacy import read_legacy
from utils.config.sizes import recorded_size
from utils.core.errors import InputError, first_line
from utils.core.files import write_atomic
from utils.core.names import counted

LOG = logging.getLogger(__name__)
FORMAT = "yolov5-dynamic"
VERSION = 1
_SLACK = 1_000_000  # parameters that a layer may make and replace while it is built


@dataclass(kw_only=True)
class Checkpoint:
    """Everything a run needs to go on, or a model to be used.

    ``imgsz`` is the side in pixels of the training images, None where that is not known.
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
    imgsz: int | None = None
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

    def recorded_size(self, source: str) -> tuple[int, int] | None:
        """(height, width) of the training images, None where the file ``source`` does not say."""
        # Files of earlier releases have it among the options only.
        return recorded_size(self.imgsz or self.options.get("imgsz"), source)

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
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--weights {path}: no such file (looked at {path.absolute()}); nothing is downloaded")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: not a checkpoint, or damaged (a .pt file is a zip archive and this is {_kind(path)})"
        )
    try:
        records = read_records(path, PICKLE)
        unknown = names_in(records["data.pkl"]) - PLAIN_NAMES
        if unknown:
            return Checkpoint(**read_legacy(path, records, unknown))
        content = load_pickle(records)
        check_values(content)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except Exception as error:  # damaged and foreign pickles fail in many ways, with one cure: another file
        raise InputError(f"{path}: cannot be read as a checkpoint: {first_line(error)}") from error
    return _from_content(content, path)


def _kind(path: Path) -> str:
    """What a file is that is no zip archive, for a message."""
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            return "not one"
    return "a bare pickle, as torch wrote before 1.6; load it where it was made and torch.save() it again"


def _from_content(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        if foreign := by_content(content):
            raise InputError(f"{path}: {foreign}")
        raise InputError(f"{path}: not a checkpoint of this program, nor an official YOLOv5 file (no model yaml in it)")
    version = content.get("format_version")
    if isinstance(version, int) and version > VERSION:
        raise InputError(f"{path}: format {version} is newer than this program's ({VERSION}); update it")
    hints = get_type_hints(Checkpoint)
    needed = [f.name for f in fields(Checkpoint) if f.default is f.default_factory is MISSING]
    problem = next((name for name in needed if name not in content), "")
    wrong = [name for name, value in content.items() if name in hints and not is_of(value, hints[name])]
    if problem or wrong or not isinstance(version, int):
        what = f"'{problem}' is missing" if problem else f"'{(wrong or ['format_version'])[0]}' is of a wrong kind"
        raise InputError(f"{path}: not written by this program, or changed since: {what}")
    checkpoint = Checkpoint(**{k: v for k, v in content.items() if k in hints})
    if not 0 < checkpoint.nc == len(checkpoint.names):
        raise InputError(f"{path}: {counted(len(checkpoint.names), 'name')} for {counted(checkpoint.nc, 'class')}")
    return checkpoint


def is_of(value: Any, hint: Any) -> bool:
    """Whether ``value`` is what a type hint says, down to the elements of a list and the values of a mapping.

    A whole number is a float as well, True and False are no numbers.
    """
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType):
        return any(is_of(value, one) for one in get_args(hint))
    kind: Any = get_origin(hint) or hint
    inside = [one for one in get_args(hint) if one is not Ellipsis]
    if kind in (int, float) and isinstance(value, bool):
        return False
    right = isinstance(value, (int, float) if kind is float else kind)
    if not right or not inside:
        return right
    return all(is_of(item, inside[-1]) for item in (value.values() if kind is dict else value))


def build_model(checkpoint: Checkpoint, source: str, kind: type[Model] = Model) -> Model:
    """Build the model of a checkpoint, in float32 on the CPU, with its EMA weights, names and temperature.

    Args:
        checkpoint: as loaded.
        source: its file, for messages.
        kind: the class to build.
    """
    stored = sum(value.numel() for value in checkpoint.weights.values())
    with bounded_construction(
        source, 4 * stored + _SLACK
    ):  # whatever its yaml says, it can be no larger than its tensors
        model = kind({**checkpoint.model_yaml, "yaml_file": source}, nc=checkpoint.nc)
    weights = {k: v.float() if v.is_floating_point() else v for k, v in checkpoint.weights.items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{source}: its tensors do not fit its own model yaml: {problem[:300]}") from error
    for name, layer in attention_layers(model):
        if layer.temperature is not None and not 1 <= float(layer.temperature) < math.inf:
            raise InputError(f"{source}: {name} has the temperature {float(layer.temperature)}; it must be 1 or more")
    if broken := [k for k, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]:
        LOG.warning("%s: %s holds values that are not finite (%d such tensors): expect wrong or no detections",
                    source, broken[0], len(broken))  # fmt: skip
    model.names = list(checkpoint.names)
    model.imgsz = checkpoint.recorded_size(source)
    return model


def load_model(
    path: str | Path, device: torch.device | str = "cpu", kind: type[Model] = Model
) -> tuple[Model, Checkpoint]:
    """Return the model of a checkpoint file in evaluation mode on ``device``, and the checkpoint itself."""
    checkpoint = load_checkpoint(path)
    return build_model(checkpoint, str(path), kind).to(device).eval(), checkpoint


def _halved(name: str, value: Tensor) -> Tensor:
    """A tensor in half precision, where it can be."""
    if not value.is_floating_point() or name.rpartition(".")[2] in ("temperature", "anchors"):
        return value  # few values whose rounding would be seen
    half = value.half()
    return value if (half.isinf() & value.isfinite()).any() else half  # a norm's variance may be beyond 65504


def strip_checkpoint(path: Path) -> float:
    """Turn a resumable file into a small one for use: averaged weights, half precision. Returns the size in MB."""
    checkpoint = load_checkpoint(path)
    checkpoint.model = {k: _halved(k, v) for k, v in checkpoint.weights.items()}
    checkpoint.ema = checkpoint.optimizer = checkpoint.scaler = None
    checkpoint.rng = {}
    checkpoint.train_state.pop("gradients", None)  # that wait for a step; as large as the weights
    save_checkpoint(path, checkpoint)
    return path.stat().st_size / 1e6
