"""v6.1's helpers for numbers and boxes that differ from ours in the order or the fate of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.registry import make_divisible as _make_divisible
from utils.core.boxes import clip_coords as _clip_coords
from utils.core.boxes import scale_coords as _scale_coords
from utils.core.seed import seed_everything
from utils.training.image_weights import class_weights as _class_weights
from utils.training.image_weights import image_weights as _image_weights
from utils.training.schedule import lr_factor

# The numbers 1 to 90 of COCO's object categories that no object has.
_COCO_UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def init_seeds(seed: int = 0) -> None:
    """Seed Python, numpy and torch; 0 also asks for repeatable GPU kernels, as in v6.1."""
    seed_everything(seed, deterministic=seed == 0 and torch.cuda.is_available())


def make_divisible(x: float, divisor: int | Tensor) -> int:
    """``x`` rounded up to a multiple of ``divisor``, or of the largest when it is a tensor of strides."""
    return _make_divisible(x, int(divisor.max()) if isinstance(divisor, Tensor) else divisor)


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Half a cosine from ``y1`` at 0 to ``y2`` at ``steps``."""
    return lambda x: y2 + (y1 - y2) * lr_factor(x, steps, 0.0, cosine=True)  # type: ignore[arg-type]


def labels_to_class_weights(labels: Sequence[np.ndarray], nc: int = 80) -> Tensor:
    """[nc] inverse frequency of each class in label arrays [n, 5+] (class first), summing to one."""
    return torch.from_numpy(_class_weights(labels, nc)).float()


def labels_to_image_weights(
    labels: Sequence[np.ndarray], nc: int = 80, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """[images] sum of the class weights over an image's objects; each counts 1 without ``class_weights``."""
    weights = np.ones(nc) if class_weights is None else np.asarray(class_weights).reshape(nc)
    return _image_weights(labels, weights)


def coco80_to_coco91_class() -> list[int]:
    """COCO's category number of each of the 80 classes, in their order."""
    return [number for number in range(1, 91) if number not in _COCO_UNUSED]


def scale_coords(img1_shape: Sequence[float], coords: Any, img0_shape: Sequence[float], ratio_pad: Any = None) -> Any:
    """As :func:`utils.core.boxes.scale_coords`, and like v6.1 it changes ``coords`` [n, 4] itself."""
    coords[:, :4] = _scale_coords(img1_shape, coords[:, :4], img0_shape, ratio_pad)
    return coords


def clip_coords(boxes: Any, shape: Sequence[float]) -> None:
    """Cut corners [n, 4] to an image of (height, width), in place like v6.1."""
    boxes[:, :4] = _clip_coords(boxes[:, :4], shape)
