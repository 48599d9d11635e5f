"""Do the anchors fit the boxes of a data set, and if not, which would?

The measure throughout: how far a box of size (w, h) is from an anchor is the worst ratio of sides, min(r, 1/r) over
both sides, 1 for equal sizes. Training assigns a box to an anchor when that is above 1 / anchor_t.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.core.names import counted

LOG = logging.getLogger(__name__)

GOOD_RECALL = 0.98
MIN_BOX_SIDE_PX = 2.0  # boxes smaller than this on both sides are excluded from the fit, and no anchor gets below it
_SAMPLE = 10_000  # boxes the fit looks at; more make it slow and change it by less than another seed does


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        bpr: best possible recall, the share of boxes that at least one anchor may predict.
        aat: anchors above threshold, the mean number of anchors that may predict a box.
        fitness: mean closeness of each box to its best anchor, counting 0 where none may predict it.
    """

    bpr: float
    aat: float
    fitness: float


@dataclass(frozen=True)
class AnchorCheck:
    """Outcome of :func:`check_anchors`: metrics of the given anchors, and better anchors of the same shape or None.

    ``message`` is one line for the log.
    """

    bpr: float
    aat: float
    anchors: np.ndarray | None
    message: str


def box_sizes(
    image_hw: Sequence[tuple[int, int]], labels: Sequence[np.ndarray], imgsz: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of all boxes on images whose longer side is scaled to ``imgsz``.

    Args:
        image_hw: height and width of every image in pixels.
        labels: per image [n, 5] class, xywh as fractions.

    Returns:
        Widths and heights [N, 2] in pixels, and the number [N] of the image each belongs to.
    """
    sizes = [np.zeros((0, 2))]
    for (height, width), rows in zip(image_hw, labels, strict=True):
        sizes.append(rows[:, 3:5] * (np.array([width, height]) * imgsz / max(height, width)))
    owner = np.repeat(np.arange(len(labels)), [len(rows) for rows in labels])
    return np.concatenate(sizes).astype(np.float32), owner


def jitter_sizes(wh: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N, 2] sizes times a factor of 0.9 to 1.1 per image; ``owner`` [N] numbers the image of each box."""
    factor = rng.uniform(0.9, 1.1, size=int(owner.max(initial=-1)) + 1)
    return wh * factor.astype(np.float32)[owner, None]


def _closeness(wh: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """[n, a] worst ratio of sides between sizes [n, 2] and anchors [a, 2], in 0..1."""
    close = np.ones((len(wh), len(anchors)), wh.dtype)
    for axis in (0, 1):  # by side, because arrays [n, a, 2] cost a multiple of the time
        # A side of 0 is infinitely far: 1/0 loses the minimum, as it should. Two of them have no ratio at all.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = wh[:, axis, None] / anchors[None, :, axis]  # [n, a]
            close = np.minimum(close, np.minimum(ratio, 1 / ratio))
    return np.nan_to_num(close, nan=0.0)


def anchor_fitness(wh: np.ndarray, anchors: np.ndarray, thr: float) -> AnchorFit:
    """Fit of anchors [..., 2] to box sizes [n, 2] in the same unit; ``thr`` is hyper-parameter ``anchor_t``.

    Without boxes all metrics are 0.
    """
    if len(wh) == 0:
        return AnchorFit(0.0, 0.0, 0.0)
    close = _closeness(wh, anchors.reshape(-1, 2))
    best, limit = close.max(1), 1 / thr
    return AnchorFit(
        bpr=float((best > limit).mean()),
        aat=float((close > limit).sum(1).mean()),
        fitness=float((best * (best > limit)).mean()),
    )


def _spread_centres(points: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 2] different points to start from, likelier the farther from those already drawn (k-means++)."""
    centres = points[rng.integers(len(points))][None]
    for _ in range(n - 1):
        distance = np.square(points[:, None] - centres[None]).sum(2).min(1)
        centres = np.concatenate([centres, points[rng.choice(len(points), p=distance / distance.sum())][None]])
    return centres


def _cluster(points: np.ndarray, n: int, rng: np.random.Generator, rounds: int = 30) -> np.ndarray:
    """[n, 2] centres by Lloyd's algorithm."""
    centres = _spread_centres(points, n, rng)
    for _ in range(rounds):
        member = np.square(points[:, None] - centres[None]).sum(2).argmin(1)
        size = np.bincount(member, minlength=n)
        sums = np.stack([np.bincount(member, points[:, axis], n) for axis in (0, 1)], axis=1)
        # A centre that lost all its points stays where it is.
        moved = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], centres)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def _evolve(wh: np.ndarray, anchors: np.ndarray, thr: float, gen: int, rng: np.random.Generator) -> np.ndarray:
    """Hill climbing: scale random sides by random factors, keep what fits better."""
    best = anchor_fitness(wh, anchors, thr).fitness
    for _ in range(gen):
        chosen = rng.random(anchors.shape) < 0.9
        step = 0.1 * rng.random() * rng.standard_normal(anchors.shape)
        child = np.maximum(anchors * np.clip(1 + chosen * step, 0.3, 3), MIN_BOX_SIDE_PX)
        fitness = anchor_fitness(wh, child, thr).fitness
        if fitness > best:
            anchors, best = child, fitness
    return anchors


def _usable(wh: np.ndarray) -> np.ndarray:
    return wh[(wh >= MIN_BOX_SIDE_PX).any(1) & (wh > 0).all(1)]


def kmean_anchors(wh: np.ndarray, n: int, thr: float, gen: int, rng: np.random.Generator) -> np.ndarray:
    """Anchors for boxes: k-means on sizes whitened per side, then ``gen`` rounds of random refinement.

    Args:
        wh: [m, 2] widths and heights in pixels. From more than 10 000 boxes that many are drawn.
        n: number of anchors.
        thr: hyper-parameter ``anchor_t``.

    Returns:
        [n, 2] in pixels, smallest area first.

    Raises:
        ValueError: fewer distinct sizes than anchors.
    """
    wh = _usable(wh.astype(np.float32))
    distinct = len(np.unique(wh, axis=0))
    if distinct < n:
        raise ValueError(f"{n} anchors need at least {n} different box sizes, got {distinct}")
    if len(wh) > _SAMPLE:
        sample = wh[rng.choice(len(wh), _SAMPLE, replace=False)]
        wh = sample if len(np.unique(sample, axis=0)) >= n else wh
    spread = wh.std(0)
    spread[spread == 0] = 1
    centres = _cluster(wh.astype(np.float64) / spread, n, rng) * spread
    anchors = _evolve(wh, np.maximum(centres, MIN_BOX_SIDE_PX).astype(np.float32), thr, gen, rng)
    return anchors[anchors.prod(1).argsort()].astype(np.float32)


def check_anchors(
    wh: np.ndarray,
    anchors: np.ndarray,
    thr: float,
    imgsz: int,
    rng: np.random.Generator,
    owner: np.ndarray | None = None,
    gen: int = 1000,
) -> AnchorCheck:
    """Keep anchors that let 98 % of the boxes be predicted, otherwise fit better ones.

    Sizes are jittered by a factor of 0.9 to 1.1 per image before they are compared, in place of the augmentation.

    Args:
        wh: [N, 2] box sizes in pixels at ``imgsz`` (see :func:`box_sizes`).
        anchors: [nl, na, 2] in pixels.
        thr: hyper-parameter ``anchor_t``.
        imgsz: for the message.
        owner: [N] number of the image of each box; without it every box is jittered by itself.
        gen: rounds of refinement.

    Returns:
        ``anchors`` of the outcome is None when the given ones are to be kept, which includes data sets that are too
        small to fit anchors to, or have no boxes whose sizes are numbers.
    """
    count = anchors.reshape(-1, 2).shape[0]
    owner = np.arange(len(wh)) if owner is None else owner
    finite = np.isfinite(wh).all(1)
    wh, owner = wh[finite], owner[finite]
    if len(wh) == 0:
        return AnchorCheck(0.0, 0.0, None, "anchors not checked, there are no boxes; keeping those of the model")
    seen = jitter_sizes(wh, owner, rng)
    given = anchor_fitness(seen, anchors, thr)
    metrics = f"best possible recall {given.bpr:.4f} with {given.aat:.2f} anchors per box at {imgsz} px"
    if given.bpr > GOOD_RECALL:
        return AnchorCheck(given.bpr, given.aat, None, f"anchors fit the boxes: {metrics}")

    distinct = len(np.unique(_usable(wh), axis=0))
    if distinct < count:
        reason = (
            f"so few different box sizes ({distinct}) are not enough to fit {count} anchors; keeping those of the model"
        )
        return AnchorCheck(given.bpr, given.aat, None, f"anchors fit badly: {metrics}, but {reason}")
    LOG.info("anchors fit badly: %s; fitting new ones to %s", metrics, counted(len(wh), "box"))
    fitted = kmean_anchors(wh, count, thr, gen, rng)
    if not np.isfinite(fitted).all():
        reason = "the fit to the boxes came to no result; keeping those of the model"
        return AnchorCheck(given.bpr, given.aat, None, f"anchors fit badly: {metrics}, but {reason}")
    better = anchor_fitness(seen, fitted, thr)
    if better.bpr <= given.bpr:
        message = f"anchors fit badly: {metrics}, but new ones reach {better.bpr:.4f}; keeping those of the model"
        return AnchorCheck(given.bpr, given.aat, None, message)
    message = f"new anchors: best possible recall {better.bpr:.4f} instead of {given.bpr:.4f} at {imgsz} px"
    return AnchorCheck(given.bpr, given.aat, fitted.reshape(anchors.shape), message)
