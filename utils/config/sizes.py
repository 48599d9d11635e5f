"""Image sizes: which one is meant where none is given, and which a network can take."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, TypeVar

LOG = logging.getLogger(__name__)
Size = TypeVar("Size", int, list[int])
DEFAULT_SIZE = 640  # of a model that records none, as in v6.1
LARGEST_SIZE = 16384  # a record beyond it is a mistake: a batch of one would take gigabytes


def recorded_size(value: Any, source: str) -> tuple[int, int] | None:
    """Return (height, width) from the image size that a file records, a number or a pair; None without one.

    An impossible size is ignored with a warning, since ``--imgsz`` can still be given.
    """
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if value is None or not sides:
        return None
    if len(sides) > 2 or any(type(side) is not int or not 32 <= side <= LARGEST_SIZE for side in sides):
        LOG.warning("%s: records the image size %.60r, which is impossible and ignored", source, value)
        return None
    return sides[0], sides[-1]


def size_text(hw: tuple[int, int]) -> str:
    """One number for a square, else height x width."""
    return f"{hw[0]}" if hw[0] == hw[1] else f"{hw[0]} x {hw[1]}"


def chosen_size(given: Sequence[int], recorded: Sequence[tuple[int, int] | None], stride: int) -> tuple[int, int]:
    """(height, width) to work at: that of ``--imgsz``, else the recorded one, else 640; multiples of the stride.

    Args:
        given: one side, or height and width; empty: ``--imgsz`` was not given, and a line says what is used instead.
        recorded: of each model that takes part, at least one; the largest counts, 640 for a model that records none.
    """
    if given:
        sides = check_img_size(list(given), stride)
        return sides[0], sides[-1]
    sizes = sorted({size or (DEFAULT_SIZE, DEFAULT_SIZE) for size in recorded})
    height, width = (math.ceil(max(sides) / stride) * stride for sides in zip(*sizes))
    text = size_text((height, width))
    if len(sizes) > 1:
        each = ", ".join(map(size_text, sizes))
        LOG.warning("image size %s, the largest of the models' sizes (%s); --imgsz sets another", text, each)
    elif any(recorded):
        LOG.info("image size %s, that of the model file; --imgsz sets another", text)
    else:
        LOG.info("image size %s, since no model file records one; --imgsz sets another", text)
    return height, width


def chosen_side(given: int | None, recorded: Sequence[tuple[int, int] | None], stride: int) -> int:
    """As :func:`chosen_size`, for what works with one number: the longer side."""
    return max(chosen_size([] if given is None else [given], recorded, stride))


def check_img_size(imgsz: Size, s: int = 32, floor: int = 0) -> Size:
    """Round a side, or several, up to multiples of the stride ``s``, at least ``floor``; a change is warned about."""
    sides: Sequence[int] = [imgsz] if isinstance(imgsz, int) else imgsz
    fitted = [max(math.ceil(side / s) * s, floor) for side in sides]
    if fitted != list(sides):
        LOG.warning("--imgsz %s is not a multiple of the stride %d: using %s", imgsz, s, fitted)
    return fitted[0] if isinstance(imgsz, int) else fitted
