"""Which other images a mosaic is made of: those that the same worker has decoded shortly before.

If they were drawn from the whole data set, every mosaic would decode four images. Here batch number n of an epoch uses
pool n modulo ``POOLS``: the last images of the earlier batches with the same pool. As the order of the images is
random, these are as random as any others, and the worker that makes all batches of a pool has them decoded. The mosaics
of a batch take different images. All this depends on the order and the seed only, not on the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from utils.datasets.dataset import ItemKey

POOLS = 8  # 1, 2, 4 or 8 workers that take batches in turn share them evenly
BLOCK = 16  # images of a batch that share a pool; larger batches use several
POOL_IMAGES = 3 * BLOCK  # a mosaic takes three, so each image is taken about three times
_LATE = BLOCK // 2  # an image that is not visible at first is decoded later than others of its batch, and kept longer
OTHER_IMAGES = 17  # two mosaics of nine, blended by mixup, take 8 + 1 + 8

_T = TypeVar("_T")
_PoolKey = tuple[int, int]  # number of the batch modulo POOLS, number of the block in it


def recent_images_needed(batch_size: int, workers: int) -> int:
    """Return how many images a worker has to keep so that none is decoded twice.

    Args:
        batch_size: of this training process.
        workers: of its loader; 0: the process itself.
    """
    pools = -(-POOLS // max(workers, 1)) * -(-batch_size // BLOCK)
    return pools * (POOL_IMAGES + BLOCK + _LATE)


def even_workers(workers: int) -> int:
    """Return the most workers, up to ``workers``, that share the pools evenly.

    Up to ``POOLS`` workers, each pool belongs to one of them. With more, a multiple of ``POOLS`` makes few workers
    share a pool: 9 workers would decode all four images of every mosaic, 16 decode two.
    """
    if workers >= POOLS:
        return workers - workers % POOLS
    return max((n for n in range(1, workers + 1) if POOLS % n == 0), default=0)


def add_mosaic_images(
    batches: Sequence[Sequence[ItemKey]], earlier: Callable[[int], Sequence[Sequence[int]]], seed: tuple[int, int]
) -> Iterator[list[ItemKey]]:
    """Yield the batches of an epoch, each key with the other images of its mosaic.

    Args:
        batches: keys of each batch.
        earlier: returns the image numbers of the batches so many epochs before, from 1.
        seed: of the run, and the epoch.
    """
    rng = np.random.default_rng((*seed, 0, 0, 1))  # trailing zeros would not count: other draws use (seed, epoch)
    used = {pool for number, batch in enumerate(batches[:POOLS]) for pool, _ in _blocks(number, batch)}
    pools = _initial_pools(used, earlier)
    for number, batch in enumerate(batches):
        keys: list[ItemKey] = []
        for pool_key, block in _blocks(number, batch):
            pool = pools[pool_key]
            shuffled = rng.permutation(np.array(pool)).tolist()
            ring = shuffled * (1 + -(-OTHER_IMAGES // len(shuffled)))
            for place, key in enumerate(block):
                first = 3 * place % len(shuffled)
                keys.append(key._replace(others=tuple(ring[first : first + OTHER_IMAGES])))
            pool.extend(key.image for key in block)
        yield keys


def _blocks(number: int, batch: Sequence[_T]) -> Iterator[tuple[_PoolKey, Sequence[_T]]]:
    """Yield the blocks of batch ``number`` of an epoch, each with its pool."""
    for block, start in enumerate(range(0, len(batch), BLOCK)):
        yield (number % POOLS, block), batch[start : start + BLOCK]


def _initial_pools(
    used: set[_PoolKey], earlier: Callable[[int], Sequence[Sequence[int]]]
) -> dict[_PoolKey, deque[int]]:
    """Return the pools at the begin of an epoch, filled from as many epochs before it as needed."""
    pools = {key: deque[int](maxlen=POOL_IMAGES) for key in used}
    missing, back = set(used), 0
    while missing:
        back += 1
        for number, batch in reversed(list(enumerate(earlier(back)))):
            for key, block in _blocks(number, batch):
                if key in missing:
                    room = POOL_IMAGES - len(pools[key])
                    pools[key].extendleft(reversed(block[-room:]))
                    if len(block) >= room:
                        missing.remove(key)
            if not missing:
                break
    return pools
