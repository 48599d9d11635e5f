"""Metadata of exported files: class names, stride, input sizes, temperature of the dynamic layers."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from utils.checkpoint.format import is_of
from utils.config.export_options import AXES
from utils.config.sizes import DEFAULT_SIZE, recorded_size
from utils.core.errors import InputError

LOG = logging.getLogger(__name__)
METADATA_VERSION = "1"
METADATA_FILE = "about.json"  # name of the metadata in archives and folders
KEY = "yolov5_dynamic"  # in the metadata of our own files
_STRIDE = 32
_MOST = 65_536  # classes, pixels of a side, images a call


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Metadata of an exported file.

    Attributes:
        names: of the classes.
        stride: sides of the input are multiples of it, in pixels.
        imgsz: height and width of the input; where an axis is free, those it was exported at.
        batch: images per call, unless free.
        dynamic: the free axes, out of ``AXES``.
        half: the input is float16.
        nms: NMS is inside; the output is [B, k, 6] (x1 y1 x2 y2 confidence class), unused rows zero.
        nms_conf, nms_iou: its thresholds.
        raw_levels: it returns the raw predictions of each level (``--train``) and no boxes.
        temperature: T of the dynamic layers, None without.
        form: how dynamic layers are computed, "" without.
    """

    names: tuple[str, ...]
    stride: int = _STRIDE
    task: str = "detect"
    imgsz: tuple[int, int] = (DEFAULT_SIZE, DEFAULT_SIZE)
    batch: int = 1
    dynamic: tuple[str, ...] = ()
    half: bool = False
    nms: bool = False
    nms_conf: float = 0.0
    nms_iou: float = 1.0
    raw_levels: bool = False
    temperature: float | None = None
    form: str = ""

    @property
    def fixed_batch(self) -> int | None:
        """Images per call, None for any number."""
        return None if "batch" in self.dynamic else self.batch

    @property
    def fixed_hw(self) -> tuple[int, int] | None:
        """The one size of the input, None where both sides are free."""
        return None if {"height", "width"} <= set(self.dynamic) else self.imgsz

    def to_plain(self) -> dict[str, Any]:
        """Return plain values by key."""
        return {KEY: METADATA_VERSION, **asdict(self)}

    def to_text(self) -> dict[str, str]:
        """Return text by key, for files that hold text: every value is JSON."""
        return as_text(self.to_plain())

    def to_json(self) -> str:
        """Return one text, for files that hold a single one; :func:`from_json` reads it."""
        return json.dumps(self.to_plain(), ensure_ascii=False)


def from_json(text: str | bytes) -> dict[str, str]:
    """Convert the result of ``to_json`` to the argument of ``from_text``; an empty text to an empty dict."""
    return as_text(json.loads(text)) if text else {}


def as_text(plain: Mapping[str, Any]) -> dict[str, str]:
    """Convert plain values to the argument of ``from_text``."""
    return {key: value if key == KEY else json.dumps(value, ensure_ascii=False) for key, value in plain.items()}


def from_text(
    text: Mapping[str, str],
    file: Path,
    names: Sequence[str] | None = None,
    shape: Sequence[Any] = (),
    classes: int | None = None,
) -> Metadata:
    """Read metadata that ``to_text`` or YOLOv5 itself wrote into a file.

    Args:
        text: keys and values; empty for a file without metadata.
        file: for messages.
        names: from a data yaml, for a file without class names.
        shape: of the input [B, 3, H, W] as the file declares it; anything but a number is free.
        classes: number of classes by the width of the output.

    Raises:
        InputError: the values cannot be read, or are of a newer version.
    """
    try:
        if KEY in text:
            if text[KEY] != METADATA_VERSION:
                raise InputError(f"{file}: exported by another version of this program; export it anew")
            known = {key: _tupled(json.loads(text[key])) for key in Metadata.__dataclass_fields__ if key in text}
            size = recorded_size(known.get("imgsz"), str(file)) or (DEFAULT_SIZE, DEFAULT_SIZE)
            info = Metadata(**{**known, "names": tuple(map(str, known.get("names", ()))), "imgsz": size})
        else:
            info = _foreign_metadata(text, file, shape)
    except (ValueError, TypeError, KeyError, SyntaxError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: what it says about its classes and sizes cannot be read; export it anew") from error
    if problem := _problem(info, max(len(info.names), classes or 0)):
        raise InputError(f"{file}: what it says of itself is no detection model: {problem}; export it anew")
    return _with_names(info, file, names, classes)


def _problem(info: Metadata, classes: int) -> str:
    """Return which value is of another type or size than this program writes, "" if none."""
    for name, hint in get_type_hints(Metadata).items():
        if not is_of(value := getattr(info, name), hint):
            return f"{name} is {str(value)[:50]}"
    if classes > _MOST:
        return f"{classes} classes"
    if wrong := [number for number in (info.stride, info.batch, *info.imgsz) if not 0 < number <= _MOST]:
        return f"the number {str(wrong[0])[:50]}"
    return "" if {*info.dynamic} <= {*AXES} else f"the free axes {str(info.dynamic)[:50]}"


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _foreign_metadata(text: Mapping[str, str], file: Path, shape: Sequence[Any]) -> Metadata:
    """Read metadata of YOLOv5 (``stride`` and ``names``, later ``imgsz``, as Python literals) or of other programs."""
    names = ast.literal_eval(text["names"]) if "names" in text else ()
    if isinstance(names, dict):
        names = [names[index] for index in sorted(names)]
    sides = [side if isinstance(side, int) and side > 0 else None for side in shape] or [None] * 4
    free = tuple(axis for axis, side in zip(AXES, (sides[0], *sides[2:])) if side is None)
    recorded = recorded_size(ast.literal_eval(text["imgsz"]) if "imgsz" in text else None, str(file))
    usual = recorded or (DEFAULT_SIZE, DEFAULT_SIZE)
    return Metadata(
        names=tuple(map(str, names)),
        stride=int(float(text.get("stride", _STRIDE))),
        batch=sides[0] or 1,
        imgsz=(sides[2] or usual[0], sides[3] or usual[1]),
        dynamic=free,
    )


def _with_names(info: Metadata, file: Path, names: Sequence[str] | None, classes: int | None) -> Metadata:
    if info.names:
        return info
    given = tuple(names or ())
    if not given and classes is None:
        raise InputError(f"{file}: says nothing of its classes; name the data yaml it was trained with (--data)")
    if not given:
        LOG.warning("%s: says nothing of its classes; they are called class0, class1, ... (--data names them)", file)
        given = tuple(f"class{index}" for index in range(classes or 0))
    return Metadata(**{**asdict(info), "names": given})
