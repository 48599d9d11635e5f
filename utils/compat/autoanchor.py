"""Names of ``utils.autoanchor`` of YOLOv5 v6.1; see :mod:`utils.datasets.anchors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.core.log import SCRIPT_LOG
from utils.datasets import anchors as anchor_math
from utils.datasets.labels.splits import load_labels

PREFIX = "AutoAnchor: "
_SEED = 0


def check_anchor_order(m: Any) -> None:
    """Reverse the levels of a head's anchors, in place, unless larger anchors belong to larger strides.

    Args:
        m: has ``anchors`` [nl, na, 2] and ``stride`` [nl]; the first and the last level are compared.
    """
    width, height = m.anchors.unbind(-1)
    sizes = (width * height).mean(dim=1).tolist()  # mean area per level
    strides = [float(stride) for stride in m.stride]
    if (sizes[0] < sizes[-1] and strides[0] > strides[-1]) or (sizes[0] > sizes[-1] and strides[0] < strides[-1]):
        SCRIPT_LOG.info("%sreversing the order of the anchors", PREFIX)
        m.anchors.copy_(m.anchors.flip(0))


def check_anchors(dataset: Any, model: Any, thr: float = 4.0, imgsz: int = 640) -> None:
    """Give a model new anchors for a data set when its own match less than 98 % of the boxes.

    Args:
        dataset: has ``shapes`` [n, 2] width and height, and ``labels``, arrays [n, 5] class, xywh as fractions.
        model: its last layer is the head; a DistributedDataParallel wrapper is allowed.
        thr: hyper-parameter ``anchor_t``.
        imgsz: side of the training images in pixels.
    """
    wh, owner = _sizes(dataset, imgsz)
    head = (model.module if hasattr(model, "module") else model).model[-1]
    pixels = head.anchors * head.stride.to(head.anchors.device).view(-1, 1, 1)
    rng = np.random.default_rng(_SEED)
    check = anchor_math.check_anchors(wh, pixels.cpu().numpy(), thr, imgsz, rng, owner)
    SCRIPT_LOG.info("%s%s", PREFIX, check.message)
    if check.anchors is not None:
        head.set_anchors_px(torch.from_numpy(check.anchors).float())


def kmean_anchors(
    dataset: Any = "./data/coco128.yaml",
    n: int = 9,
    img_size: int = 640,
    thr: float = 4.0,
    gen: int = 1000,
    verbose: bool = True,
) -> np.ndarray:
    """Compute anchors [n, 2] in pixels for a data set, smallest first: k-means, then ``gen`` random mutations.

    Args:
        dataset: data yaml, or an object as for :func:`check_anchors`.
        n: number of anchors.
        img_size: side of the training images in pixels.
        thr: hyper-parameter ``anchor_t``.
        verbose: log the anchors and their fit.

    Raises:
        FileNotFoundError, InputError: the data set is missing, or has fewer different boxes than ``n``.
    """
    if isinstance(dataset, (str, Path)):
        spec = DatasetSpec.load(dataset)
        records = load_labels(spec, "train").records
        wh, owner = anchor_math.box_sizes([r.hw for r in records], [r.boxes for r in records], img_size)
    else:
        wh, owner = _sizes(dataset, img_size)
    rng = np.random.default_rng(_SEED)
    wh = anchor_math.jitter_sizes(wh, owner, rng)
    try:
        anchors = anchor_math.kmean_anchors(wh, n, thr, gen, rng)
    except ValueError as error:
        raise InputError(str(error)) from error
    if verbose:
        fit = anchor_math.anchor_fitness(wh, anchors, thr)
        pairs = ", ".join(f"{w:.0f},{h:.0f}" for w, h in anchors)
        SCRIPT_LOG.info("%s%s; best possible recall %.4f, %.2f anchors per box", PREFIX, pairs, fit.bpr, fit.aat)
    return anchors


def _sizes(dataset: Any, imgsz: int) -> tuple[np.ndarray, np.ndarray]:
    """Return widths and heights in pixels of all boxes of a data set in memory, and the image index of each."""
    return anchor_math.box_sizes([(int(h), int(w)) for w, h in dataset.shapes], list(dataset.labels), imgsz)
