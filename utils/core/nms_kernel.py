"""The innermost step of the suppression: torchvision's compiled kernel, without the price of importing torchvision.

``import torchvision`` takes as long as ``import torch``, and only one of its kernels is wanted. The kernels lie in a
library of their own, which torch can load by itself in a few milliseconds.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_thres: float) -> Tensor:
    """Indices [k] of the boxes that survive, best first.

    Args:
        boxes: [n, 4] corners.
        scores: [n].
        iou_thres: of two boxes that overlap more, the one with the lower score goes.
    """
    _load_kernels()
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, iou_thres)
    return kept


@lru_cache(maxsize=1)
def _load_kernels() -> None:
    """Make ``torch.ops.torchvision`` known: from the library alone where it can be found, else by the import."""
    if _known():
        return
    spec = importlib.util.find_spec("torchvision")  # finds the package and runs nothing of it
    folders = (spec.submodule_search_locations if spec else None) or ()
    for library in (file for folder in folders for file in sorted(Path(folder).glob("_C*"))):
        try:
            torch.ops.load_library(library)
        except OSError:  # not a library, or one that needs what only the package's own import sets up
            continue
        if _known():
            return
    import torchvision  # noqa: F401


def _known() -> bool:
    try:
        return bool(torch.ops.torchvision.nms)
    except AttributeError:
        return False
