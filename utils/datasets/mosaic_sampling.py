"""Which images a mosaic takes beside its own: those that the same loader process has decoded shortly before.

Were they drawn from the whole data set, every mosaic would decode four images. Here the batches of an epoch are dealt
to lanes by turns, like cards, and the partners of a batch are the last images of its lane: as the order is a random
one, they are as random as any others, and whoever makes the batches of a lane has them at hand. The mosaics of a batch
take different ones. What is dealt depends on the order and the seed only, not on how many processes load.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from utils.datasets.dataset import Key

LANES = 8  # 1, 2, 4 or 8 processes that take batches by turns share them evenly
BLOCK = 16  # images of a batch that have a lane of their own
POOL = 3 * BLOCK  # the last images of a lane; a mosaic takes three, so each is taken about three times
_LATE = BLOCK // 2  # an image that is hidden at first is decoded later than its neighbours, and goes later
HAND = 17  # two mosaics of nine, blended, take 8 + 1 + 8

ItemT = TypeVar("ItemT")
Lane = tuple[int, int]  # number of the batch modulo LANES, number of the block in it


def kept_images(batch_size: int, workers: int) -> int:
    """How many images a loader process has to keep so that partners need not be decoded again.

    Args:
        batch_size: of this training process.
        workers: its loader processes; 0: none but itself.
    """
    lanes = -(-LANES // max(workers, 1)) * -(-batch_size // BLOCK)
    return lanes * (POOL + BLOCK + _LATE)


def even_workers(workers: int) -> int:
    """The most processes, up to ``workers``, that do not scatter the lanes.

    Up to LANES each lane stays with one process. Above them a multiple of LANES makes a lane come back to the same few:
    9 processes would decode all four images of every mosaic, 16 decode two.
    """
    if workers >= LANES:
        return workers - workers % LANES
    return max((n for n in range(1, workers + 1) if LANES % n == 0), default=0)


def deal_partners(
    batches: Sequence[Sequence[Key]], earlier: Callable[[int], Sequence[Sequence[int]]], seed: tuple[int, int]
) -> Iterator[list[Key]]:
    """The batches of an epoch, each key with its partners.

    Args:
        batches: keys of each batch.
        earlier: indices of the batches so many epochs before, from 1.
        seed: of the run, and the epoch.
    """
    rng = np.random.default_rng((*seed, 0, 0, 1))  # zeros at the end would not count: others use (seed, epoch)
    wanted = {lane for number, batch in enumerate(batches[:LANES]) for lane, _ in _blocks(number, batch)}
    pools = _pools_before(wanted, earlier)
    for number, batch in enumerate(batches):
        keys: list[Key] = []
        for lane, own in _blocks(number, batch):
            pool = pools[lane]
            cards = rng.permutation(np.array(pool)).tolist()
            ring = cards * (1 + -(-HAND // len(cards)))
            for place, key in enumerate(own):
                first = 3 * place % len(cards)
                keys.append(key._replace(partners=tuple(ring[first : first + HAND])))
            pool.extend(key.image for key in own)
        yield keys


def _blocks(number: int, batch: Sequence[ItemT]) -> Iterator[tuple[Lane, Sequence[ItemT]]]:
    """The blocks of batch ``number`` of an epoch, each with its lane."""
    for block, start in enumerate(range(0, len(batch), BLOCK)):
        yield (number % LANES, block), batch[start : start + BLOCK]


def _pools_before(lanes: set[Lane], earlier: Callable[[int], Sequence[Sequence[int]]]) -> dict[Lane, deque[int]]:
    """What each lane holds when an epoch begins, filled from the epochs before it, as far back as need be."""
    pools = {lane: deque[int](maxlen=POOL) for lane in lanes}
    wanted, back = set(lanes), 0
    while wanted:
        back += 1
        for number, batch in reversed(list(enumerate(earlier(back)))):
            for lane, own in _blocks(number, batch):
                if lane in wanted:
                    room = POOL - len(pools[lane])
                    pools[lane].extendleft(reversed(own[-room:]))
                    if len(own) >= room:
                        wanted.remove(lane)
            if not wanted:
                break
    return pools
