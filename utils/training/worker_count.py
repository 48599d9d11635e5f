"""How loader processes and the training share the processors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

NICENESS = 10


class BehindTraining:
    """Starts a loader process that gives way to the training wherever both want the same processor.

    The threads of a training step wait for one another: held up on one processor, all of them are. Images have time
    until the step is done, and when the training waits for them the processors are theirs. Where every processor is
    kept busy by programs of others, the loader processes wait as well.

    Args:
        then: what the loader itself wants done at the start of a process.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        """Run in the new process."""
        with contextlib.suppress(AttributeError, OSError):  # Windows has no such thing, a container may forbid it
            os.nice(NICENESS)
        if self.then is not None:
            self.then(worker)
