"""routing.csv: which kernels the dynamic layers use, a row per epoch and layer; warnings about unused ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from models.routing import RoutingStats
from utils.core.callbacks import Callback, TrainEnd, TrainStart, ValEnd
from utils.core.output import csv_text
from utils.loggers.results_csv import keep_rows_before, number_cell

logger = logging.getLogger(__name__)

ROUTING_CSV = "routing.csv"
ROUTING_COLUMNS = ("layer", "K", "T", "samples", "entropy", "entropy_of_mean", "spread")


def routing_columns(stats: Sequence[RoutingStats]) -> tuple[str, ...]:
    """Return ``ROUTING_COLUMNS``, then ``dominant_0`` ... and ``mean_0`` ... as far as any layer has kernels."""
    most = max((layer.kernels for layer in stats), default=0)
    return ROUTING_COLUMNS + tuple(f"{name}_{k}" for name in ("dominant", "mean") for k in range(most))


def routing_cells(layer: RoutingStats, columns: Sequence[str]) -> list[str]:
    """Return the cells of a layer for ``columns``; empty for kernels and temperatures that it does not have."""
    known: dict[str, str] = {
        "layer": layer.name,
        "K": str(layer.kernels),
        "T": "" if layer.temperature is None else number_cell(layer.temperature),
        "samples": str(layer.samples),
        "entropy": number_cell(layer.entropy),
        "entropy_of_mean": number_cell(layer.entropy_of_mean),
        "spread": number_cell(layer.spread),
    }
    known |= {f"dominant_{k}": number_cell(float(value)) for k, value in enumerate(layer.dominant)}
    known |= {f"mean_{k}": number_cell(float(value)) for k, value in enumerate(layer.mean)}
    return [known.get(name, "") for name in columns]


def csv_table(stats: Sequence[RoutingStats]) -> str:
    """Return one measurement as the text of a file: the header and a row per layer."""
    columns = routing_columns(stats)
    return csv_text([columns, *(routing_cells(layer, columns) for layer in stats)])


class RoutingCsv(Callback):
    """Appends the routing of every validated epoch, and warns at the end about layers that do not use their kernels.

    At a high temperature all layers are close to uniform by design, so there are no warnings when the run ends before
    T is ``temperature_end``; a run that is ``too_short`` logs this instead. Resumed runs are as in results.csv.
    """

    def __init__(self, temperature_end: float = 1.0, too_short: bool = False) -> None:
        self._temperature_end, self._too_short = temperature_end, too_short
        self._file = Path(ROUTING_CSV)
        self._columns: tuple[str, ...] = ()
        self._last: Sequence[RoutingStats] = ()

    def on_train_start(self, event: TrainStart) -> None:
        """Clear the file, or keep the rows before the resumed epoch."""
        self._file = event.save_dir / ROUTING_CSV
        self._columns = keep_rows_before(self._file, event.resumed_epoch)
        self._last = ()

    def on_val_end(self, event: ValEnd) -> None:
        """Append a row per dynamic layer."""
        self._last = event.routing
        if not event.routing:
            return
        rows: list[Sequence[str]] = []
        if not self._columns:
            self._columns = ("epoch", *routing_columns(event.routing))
            rows.append(self._columns)
        rows += [[str(event.epoch), *routing_cells(layer, self._columns[1:])] for layer in event.routing]
        with self._file.open("a", newline="", encoding="utf-8") as stream:
            stream.write(csv_text(rows))

    def on_train_end(self, event: TrainEnd) -> None:
        """Warn once per layer that does not use its kernels."""
        if self._last and self._too_short:
            logger.info("routing of the dynamic layers: the run is too short to assess it")
            return
        for layer in self._last:
            if layer.warnings and (layer.temperature is None or layer.temperature <= self._temperature_end):
                logger.warning("dynamic layer %s: %s", layer.name, layer.verdict)
