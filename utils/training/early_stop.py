"""Early stopping: a run ends when its fitness has not improved for some epochs."""

from __future__ import annotations

from typing import Any


class EarlyStopping:
    """Stops a run whose fitness has not reached its best for ``patience`` epochs; equal to the best counts as better.

    Args:
        patience: epochs to wait after the best one; 0: never stop.

    Attributes:
        best_epoch, best_fitness: of the best epoch so far; of equal ones the last.
        since: epochs before this one do not count as waiting; set when a run is extended.
        possible_stop: the next epoch may be the last.
    """

    def __init__(self, patience: int = 100) -> None:
        self.patience = patience
        self.best_epoch = 0
        self.best_fitness = 0.0
        self.since = 0
        self.possible_stop = False

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Record the fitness of an epoch; True when the run should stop. Not-a-number is never the best."""
        if fitness >= self.best_fitness:
            self.best_epoch, self.best_fitness = epoch, fitness
        waited = epoch - max(self.best_epoch, self.since)
        self.possible_stop = 0 < self.patience <= waited + 1
        return 0 < self.patience <= waited

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for :meth:`load_state_dict`, without the patience, which is an option."""
        return {
            "best_epoch": self.best_epoch,
            "best_fitness": self.best_fitness,
            "since": self.since,
            "possible_stop": self.possible_stop,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.best_epoch = int(state["best_epoch"])
        self.best_fitness = float(state["best_fitness"])
        self.since = int(state.get("since", 0))
        self.possible_stop = bool(state["possible_stop"])
