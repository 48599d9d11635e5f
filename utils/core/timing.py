"""Wall-clock time per stage of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def synchronized_seconds(device: torch.device | None) -> float:
    """Return the seconds of a clock for measuring durations; on a GPU, after its queue is finished."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class StageTimer:
    """Adds up the seconds and the image counts of named stages.

    ``with timer.stage("inference", images=8): ...`` times one piece of work on eight images. On a GPU the clock is read
    when the queue is finished, since a launched kernel may still be running.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.images: dict[str, int] = {}
        self._device = device

    @contextmanager
    def stage(self, name: str, images: int = 0) -> Iterator[None]:
        """Time the body of a ``with`` statement, also when it raises."""
        begin = synchronized_seconds(self._device)
        try:
            yield
        finally:
            self.add(name, synchronized_seconds(self._device) - begin, images)

    def add(self, name: str, seconds: float, images: int = 0) -> None:
        """Add time measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.images[name] = self.images.get(name, 0) + images

    def per_image_ms(self) -> dict[str, float]:
        """Mean milliseconds per image of each stage, in order of first use; 0.0 for stages without images."""
        return {
            name: 1000.0 * seconds / self.images[name] if self.images[name] else 0.0
            for name, seconds in self.seconds.items()
        }
