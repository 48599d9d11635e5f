"""Picture sizes a network can take."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TypeVar

LOG = logging.getLogger(__name__)
Size = TypeVar("Size", int, list[int])


def check_img_size(imgsz: Size, s: int = 32, floor: int = 0) -> Size:
    """Round a side, or several, up to multiples of the stride ``s``, at least ``floor``; a change is warned about."""
    sides: Sequence[int] = [imgsz] if isinstance(imgsz, int) else imgsz
    fitted = [max(math.ceil(side / s) * s, floor) for side in sides]
    if fitted != list(sides):
        LOG.warning("--imgsz %s is not a multiple of the stride %d: using %s", imgsz, s, fitted)
    return fitted[0] if isinstance(imgsz, int) else fitted
