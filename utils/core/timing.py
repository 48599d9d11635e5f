"""Wall-clock time per stage of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageTimer:
    """Adds up the seconds and the image counts of named stages.

    ``with timer.stage("inference", images=8): ...`` times one piece of work on eight images. On a GPU the queue is
    drained before the clock is read, since a launched kernel has not run yet.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.images: dict[str, int] = {}
        self._device = device

    @contextmanager
    def stage(self, name: str, images: int = 0) -> Iterator[None]:
        """Time the body of a ``with`` block; it counts even when the body raises."""
        begin = self._now()
        try:
            yield
        finally:
            self.add(name, self._now() - begin, images)

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

    def _now(self) -> float:
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
