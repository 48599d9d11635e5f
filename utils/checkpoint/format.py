"""The checkpoint file: one dict of plain types and tensors, read without executing anything.

``torch.load(weights_only=True)`` reads it, after :mod:`utils.checkpoint.archive` has checked its records and sizes.
Official YOLOv5 files, which are pickled modules, are recognised and read by :mod:`utils.checkpoint.legacy`, also
without running their code.
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
from utils.checkpoint.official import describe_missing
from utils.config.sizes import recorded_size
from utils.core.errors import InputError, first_line
from utils.core.files import write_atomic
from utils.core.names import counted

LOG = logging.getLogger(__name__)
CHECKPOINT_FORMAT = "yolov5-dynamic"
CHECKPOINT_VERSION = 1
_SLACK = 1_000_000  # parameters that a layer may allocate and replace while it is built


@dataclass(kw_only=True)
class Checkpoint:
    """Everything that is needed to resume a run, or to use a model.

    ``imgsz`` is the size of the training images in pixels; None: unknown. ``model`` and ``ema`` are state dicts; a
    stripped file of a finished run has only ``model`` (the EMA weights in half precision) and no optimizer.
    ``train_state`` has epoch, best fitness, patience and the like.
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
    origin: str = CHECKPOINT_FORMAT  # or "official", for a converted YOLOv5 file

    @property
    def weights(self) -> dict[str, Tensor]:
        """The EMA weights if there are any, else the weights of the model."""
        return self.ema if self.ema is not None else self.model

    def recorded_size(self, source: str) -> tuple[int, int] | None:
        """Return (height, width) of the training images; None if the file ``source`` has no size."""
        # Files of earlier releases have it in the options only.
        return recorded_size(self.imgsz or self.options.get("imgsz"), source)

    @property
    def resumable(self) -> bool:
        return self.optimizer is not None


def to_plain_types(value: Any) -> Any:
    """Convert paths, numpy scalars, arrays and tuples to types that the safe loader accepts."""
    if isinstance(value, Mapping):
        return {(k if isinstance(k, int) else str(k)): to_plain_types(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_types(v) for v in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        return value.detach().contiguous()  # the memory format of the training is not saved
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)  # the safe loader refuses subclasses, such as torch's version string
    raise TypeError(f"a checkpoint holds plain types only, not {type(value).__name__}")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; ``path`` is always the complete old or the complete new file."""
    content = {f.name: to_plain_types(getattr(checkpoint, f.name)) for f in fields(checkpoint)}
    content |= {"format": CHECKPOINT_FORMAT, "format_version": CHECKPOINT_VERSION}
    content["date"] = checkpoint.date or datetime.datetime.now().isoformat(timespec="seconds")
    content["versions"] = checkpoint.versions or to_plain_types({"torch": torch.__version__, "numpy": np.__version__})
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of this repository, or an official YOLOv5 file, to the CPU. No code of the file runs.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a checkpoint, damaged, of a newer format, or naming classes that are not accepted.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(describe_missing(path))
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
    except Exception as error:  # damaged pickles and those of other programs fail in many ways
        raise InputError(f"{path}: cannot be read as a checkpoint: {first_line(error)}") from error
    return _from_content(content, path)


def _kind(path: Path) -> str:
    """Describe a file that is not a zip archive, for a message."""
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            return "not one"
    return "a bare pickle, as torch wrote before 1.6; load it where it was made and torch.save() it again"


def _from_content(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        if foreign := by_content(content):
            raise InputError(f"{path}: {foreign}")
        raise InputError(f"{path}: not a checkpoint of this program, nor an official YOLOv5 file (no model yaml in it)")
    version = content.get("format_version")
    if isinstance(version, int) and version > CHECKPOINT_VERSION:
        raise InputError(f"{path}: format {version} is newer than this program's ({CHECKPOINT_VERSION}); update it")
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
    """Whether ``value`` has the type of a hint, also in the elements of a list and the values of a mapping.

    An integer is a float as well; True and False are not numbers.
    """
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType):
        return any(is_of(value, one) for one in get_args(hint))
    kind: Any = get_origin(hint) or hint
    inside = [one for one in get_args(hint) if one is not Ellipsis]
    if kind in (int, float) and isinstance(value, bool):
        return False
    matches = isinstance(value, (int, float) if kind is float else kind)
    if not matches or not inside:
        return matches
    return all(is_of(item, inside[-1]) for item in (value.values() if kind is dict else value))


def model_from_checkpoint(checkpoint: Checkpoint, source: str, kind: type[Model] = Model) -> Model:
    """Build the model of a checkpoint, in float32 on the CPU, with its EMA weights, names and temperature.

    Args:
        checkpoint: as loaded.
        source: its file, for messages.
        kind: the class to build.
    """
    stored = sum(value.numel() for value in checkpoint.weights.values())
    with bounded_construction(source, 4 * stored + _SLACK):  # its yaml may describe a model larger than its tensors
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
        problem = f"{broken[0]} holds values that are not finite ({len(broken)} such tensors)"
        LOG.warning("%s: %s: expect wrong or no detections", source, problem)
    model.names = list(checkpoint.names)
    model.imgsz = checkpoint.recorded_size(source)
    return model


def load_model(
    path: str | Path, device: torch.device | str = "cpu", kind: type[Model] = Model
) -> tuple[Model, Checkpoint]:
    """Return the model of a checkpoint file in evaluation mode on ``device``, and the checkpoint itself."""
    checkpoint = load_checkpoint(path)
    return model_from_checkpoint(checkpoint, str(path), kind).to(device).eval(), checkpoint


def _halved(name: str, value: Tensor) -> Tensor:
    """Return a tensor in half precision, unless its values would change too much."""
    if not value.is_floating_point() or name.rpartition(".")[2] in ("temperature", "anchors"):
        return value  # rounding of these few values would matter
    half = value.half()
    return value if (half.isinf() & value.isfinite()).any() else half  # a norm's variance may be beyond 65504


def strip_checkpoint(path: Path) -> float:
    """Reduce a resumable file to the EMA weights in half precision; return its size in MB."""
    checkpoint = load_checkpoint(path)
    checkpoint.model = {k: _halved(k, v) for k, v in checkpoint.weights.items()}
    checkpoint.ema = checkpoint.optimizer = checkpoint.scaler = None
    checkpoint.rng = {}
    checkpoint.train_state.pop("gradients", None)  # of an accumulation in progress; as large as the weights
    save_checkpoint(path, checkpoint)
    return path.stat().st_size / 1e6
