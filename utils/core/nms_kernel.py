"""The NMS kernel of torchvision, without importing torchvision.

``import torchvision`` takes as long as ``import torch``. Its kernels are in a separate library, which torch can load in
a few milliseconds.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_thres: float) -> Tensor:
    """Return the indices [k] of the boxes that NMS keeps, best first.

    Args:
        boxes: [n, 4] corners.
        scores: [n].
        iou_thres: of two boxes with a higher IoU, the one with the lower score is dropped.
    """
    _load_kernels()
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, iou_thres)
    return kept


@lru_cache(maxsize=1)
def _load_kernels() -> None:
    """Register ``torch.ops.torchvision``: from the library if it is there, else by importing torchvision."""
    if _is_registered():
        return
    spec = importlib.util.find_spec("torchvision")  # does not import the package
    folders = (spec.submodule_search_locations if spec else None) or ()
    for library in (file for folder in folders for file in sorted(Path(folder).glob("_C*"))):
        try:
            torch.ops.load_library(library)
        except OSError:  # not a library, or one that needs the import of the package
            continue
        if _is_registered():
            return
    import torchvision  # noqa: F401


def _is_registered() -> bool:
    try:
        return bool(torch.ops.torchvision.nms)
    except AttributeError:
        return False
