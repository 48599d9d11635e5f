"""Functions of v6.1's ``utils.autoanchor``; the work is done in ``utils.datasets.anchors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.core.log import SCRIPT_LOG
from utils.datasets import anchors as _anchors
from utils.datasets.dataset_labels import load_labels

PREFIX = "AutoAnchor: "
_SEED = 0

__all__ = ["PREFIX", "check_anchor_order", "check_anchors", "kmean_anchors"]


def check_anchor_order(m: Any) -> None:
    """Turn the anchors of a head round, in place, when they go from large to small while its strides go up.

    Args:
        m: has ``anchors`` [nl, na, 2] and ``stride`` [nl].
    """
    areas = m.anchors.prod(-1).mean(-1)
    if (areas[-1] - areas[0]).sign() * (m.stride[-1] - m.stride[0]).sign() < 0:
        SCRIPT_LOG.info("%sturning the order of the anchors round", PREFIX)
        m.anchors[:] = m.anchors.flip(0)


def check_anchors(dataset: Any, model: Any, thr: float = 4.0, imgsz: int = 640) -> None:
    """Give a model anchors that suit a data set, when its own let less than 98 % of the boxes be found.

    Args:
        dataset: has ``shapes`` [n, 2] width and height, and ``labels``, arrays [n, 5] class, xywh as fractions.
        model: its last layer is the head; it may be wrapped for several GPUs.
        thr: hyper-parameter ``anchor_t``.
        imgsz: side of the training images in pixels.
    """
    wh, owner = _sizes(dataset, imgsz)
    head = (model.module if hasattr(model, "module") else model).model[-1]
    pixels = head.anchors * head.stride.to(head.anchors.device).view(-1, 1, 1)
    rng = np.random.default_rng(_SEED)
    check = _anchors.check_anchors(wh, pixels.cpu().numpy(), thr, imgsz, rng, owner)
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
    """[n, 2] anchors in pixels for a data set, smallest first: k-means, then ``gen`` rounds of random refinement.

    Args:
        dataset: data yaml, or an object as for :func:`check_anchors`.
        n: number of anchors.
        img_size: side of the training images in pixels.
        thr: hyper-parameter ``anchor_t``.
        verbose: log the anchors and how well they fit.

    Raises:
        FileNotFoundError, InputError: the data set is not there, or has fewer different boxes than anchors are asked.
    """
    if isinstance(dataset, (str, Path)):
        spec = DatasetSpec.load(dataset)
        records = load_labels(spec, "train").records
        wh, owner = _anchors.box_sizes([r.hw for r in records], [r.boxes for r in records], img_size)
    else:
        wh, owner = _sizes(dataset, img_size)
    rng = np.random.default_rng(_SEED)
    wh = _anchors.jitter_sizes(wh, owner, rng)
    try:
        found = _anchors.kmean_anchors(wh, n, thr, gen, rng)
    except ValueError as error:
        raise InputError(str(error)) from error
    if verbose:
        fit = _anchors.anchor_fitness(wh, found, thr)
        SCRIPT_LOG.info(
            "%s%s; best possible recall %.4f, %.2f anchors per box",
            PREFIX, ", ".join(f"{w:.0f},{h:.0f}" for w, h in found), fit.bpr, fit.aat,
        )  # fmt: skip
    return found


def _sizes(dataset: Any, imgsz: int) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights in pixels of all boxes of a data set in memory, and the image of each."""
    return _anchors.box_sizes([(int(h), int(w)) for w, h in dataset.shapes], list(dataset.labels), imgsz)
