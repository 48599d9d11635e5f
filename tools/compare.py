"""Size, arithmetic, time and memory of several models, side by side.

    python -m tools.compare yolov5l.yaml yolov5_dynamic.yaml --imgsz 640 --device cpu

The first model is the one the others are compared to. What is measured, for one batch of noise:

* layers, parameters, and GFLOPs for one image (see :mod:`models.summary`);
* forward: the model as ``detect.py`` runs it, norms folded, in float32;
* training step: forward, loss on random boxes, backward, one SGD step with momentum, float16 where ``train.py`` uses it
  (on a GPU);
* peak memory of a training step: weights, momenta, gradients and activations. On a GPU what torch's allocator had
  handed out at most; on a CPU the most bytes that all tensors had together, as torch's profiler saw them. Scratch space
  that a library takes for itself inside one operation is in neither.

The models take turns, one call each, so that whatever else the machine does hits all alike; times are medians, and the
spread shown behind them is half the distance between the quartiles: smaller differences mean nothing.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.options import CompareOptions
from utils.config.cli import answer_early, run_script

answer_early(CompareOptions, __name__)

import numpy as np
import torch
from tqdm import tqdm

from models.fuse import fuse
from models.summary import ModelSummary, summarize
from models.user_modules import load_modules
from models.yolo import Model
from utils.checkpoint import load_model
from utils.config.sizes import chosen_side
from utils.core.device import select_device
from utils.core.errors import InputError
from utils.core.output import run_folder, write_table
from utils.core.timing import StageTimer
from utils.plots.compare import Panel, plot_comparison
from utils.training.dry_run import random_images, training_memory, training_step

LOG = logging.getLogger(__name__)

WARM_UP_ROUNDS = 2  # rounds whose times are thrown away


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        low, median, high = np.percentile(np.asarray(seconds) * 1e3, [25, 50, 75]).tolist()
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.1f} ± {(self.high - self.low) / 2:.1f}"


@dataclass(frozen=True)
class ModelCosts:
    """What was measured of one model; ``step`` and ``memory_mib`` are None when no training step ran."""

    name: str
    summary: ModelSummary
    forward: Timing
    step: Timing | None = None
    memory_mib: float | None = None


@dataclass(frozen=True)
class CostColumn:
    """One quantity of the table.

    Attributes:
        title: in the table.
        key: in the csv file.
        value: a number or a time, None where it was not measured.
        form: format string of the table.
    """

    title: str
    key: str
    value: Callable[[ModelCosts], float | Timing | None]
    form: str

    def text(self, row: ModelCosts) -> str:
        return self.form.format(self.value(row))

    def number(self, row: ModelCosts) -> float | None:
        """The value, of a time the median in milliseconds."""
        value = self.value(row)
        return value.median if isinstance(value, Timing) else value


COST_COLUMNS = (
    CostColumn("layers", "layers", lambda row: row.summary.layers, "{}"),
    CostColumn("parameters", "parameters", lambda row: row.summary.parameters, "{:,}"),
    CostColumn("GFLOPs", "gflops", lambda row: row.summary.gflops, "{:.2f}"),
    CostColumn("forward ms", "forward_ms", lambda row: row.forward, "{}"),
    CostColumn("training step ms", "step_ms", lambda row: row.step, "{}"),
    CostColumn("peak MiB", "peak_mib", lambda row: row.memory_mib, "{:,.0f}"),
)


def load_models(options: CompareOptions) -> list[tuple[str, Model]]:
    """(name to show, model on the CPU) in the order of the command line.

    Raises:
        FileNotFoundError, InputError: a file is missing or cannot be read or built.
    """
    given = [*options.models, *options.weights]
    loaded = []
    for text in given:
        is_checkpoint = text in options.weights or Path(text).suffix == ".pt"
        loaded.append(load_model(text)[0] if is_checkpoint else Model(text, nc=options.nc))
    stems = [Path(text).stem for text in given]
    names = [stem if stems.count(stem) == 1 else text for stem, text in zip(stems, given)]
    return list(zip(names, loaded))


def time_in_turns(runs: Sequence[Callable[[], object]], device: torch.device, repeats: int, what: str) -> list[Timing]:
    """Time of one call of each of ``runs``, which take turns ``repeats`` times after a warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    with tqdm(total=len(runs) * (WARM_UP_ROUNDS + repeats), desc=what, leave=False, dynamic_ncols=True) as progress:
        for turn in range(WARM_UP_ROUNDS + repeats):
            for run, taken in zip(runs, seconds):
                timer = StageTimer(device)
                with timer.stage(what):
                    run()
                if turn >= WARM_UP_ROUNDS:
                    taken.append(timer.seconds[what])
                progress.update()
    return [Timing.of(taken) for taken in seconds]


def forward_times(models: Sequence[Model], options: CompareOptions, imgsz: int, device: torch.device) -> list[Timing]:
    """Time of a forward pass of fused copies of the models."""
    fused = [fuse(copy.deepcopy(model)).to(device).eval() for model in models]
    images = [random_images(model, options.batch_size, imgsz, device) for model in models]
    runs = [partial(model, x) for model, x in zip(fused, images)]
    with torch.inference_mode():
        return time_in_turns(runs, device, options.repeats, "forward")


def step_times(models: Sequence[Model], options: CompareOptions, imgsz: int, device: torch.device) -> list[Timing]:
    """Time of a training step of the models, whose weights are of no use afterwards."""
    steps = [training_step(model, options.batch_size, imgsz, device) for model in models]
    return time_in_turns(steps, device, options.repeats, "training step")


@contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    """What a model cannot do at this size, in one line."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(f"{name}: out of memory; lower --batch-size or --imgsz, or --notrain") from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"{name}: a map of one pixel and one image has nothing to normalise over in training; "
            "raise --imgsz or --batch-size, or --notrain"
        ) from error


def compare_models(
    models: Sequence[tuple[str, Model]], options: CompareOptions, imgsz: int, device: torch.device
) -> list[ModelCosts]:
    """Measure the models; one row each, in their order.

    Raises:
        InputError: a model cannot be trained with so few values per channel, or the memory does not suffice.
    """
    names, nets = [name for name, _ in models], [model for _, model in models]
    summaries = [summarize(model, imgsz) for model in tqdm(nets, desc="counting", leave=False, dynamic_ncols=True)]
    memory: list[float | None] = [None] * len(nets)
    steps: list[Timing | None] = [None] * len(nets)
    if not options.notrain:  # one model after the other, before all of them are on the device
        for index, name in enumerate(tqdm(names, desc="memory", leave=False, dynamic_ncols=True)):
            with _readable_errors(name):
                memory[index] = training_memory(nets[index], options.batch_size, imgsz, device)
    with _readable_errors("all models together"):
        forwards = forward_times(nets, options, imgsz, device)
        if not options.notrain:
            steps = [*step_times(nets, options, imgsz, device)]
    return [ModelCosts(*values) for values in zip(names, summaries, forwards, steps, memory)]


def measured_columns(rows: Sequence[ModelCosts]) -> list[CostColumn]:
    """The columns that have values."""
    return [column for column in COST_COLUMNS if column.value(rows[0]) is not None]


def difference(column: CostColumn, row: ModelCosts, reference: ModelCosts) -> float | None:
    """Percent by which ``row`` exceeds ``reference``; None where there is nothing to compare."""
    value, base = column.number(row), column.number(reference)
    return None if value is None or not base or row is reference else 100 * (value / base - 1)


def _cells(rows: Sequence[ModelCosts]) -> list[list[str]]:
    """Title row and a row for each model: value and difference in columns of their own after the name."""
    columns = measured_columns(rows)
    table = [["model", *[text for column in columns for text in (column.title, "")]]]
    for row in rows:
        cells = [row.name]
        for column in columns:
            percent = difference(column, row, rows[0])
            cells += [column.text(row), "" if percent is None else f"({percent:+.1f} %)"]
        table.append(cells)
    return table


def cost_text(rows: Sequence[ModelCosts]) -> str:
    """The rows for a terminal: numbers to the right, differences behind them."""
    table = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = []
    for cells in table:
        padded = [
            cell.rjust(width + 1) if i % 2 else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths))
        ]
        lines.append(" ".join(padded).rstrip())
    return "\n".join(lines)


def cost_markdown(rows: Sequence[ModelCosts]) -> str:
    """The rows as a markdown table."""
    joined = [
        [name, *[f"{value} {percent}".strip() for value, percent in zip(cells[::2], cells[1::2])]]
        for name, *cells in _cells(rows)
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in joined]
    return "\n".join([lines[0], f"|---|{'---:|' * (len(joined[0]) - 1)}", *lines[1:]])


def write_cost_csv(rows: Sequence[ModelCosts], file: Path) -> None:
    """One line for each model: every value, quartiles of the times, differences in percent to the first model."""
    lines: list[dict[str, object]] = []
    for row in rows:
        line: dict[str, object] = {"model": row.name}
        for column in measured_columns(rows):
            line[column.key] = column.number(row)
            percent = difference(column, row, rows[0])
            line[f"{column.key}_percent"] = 0.0 if percent is None else round(percent, 3)
        for column in measured_columns(rows):
            if isinstance(timing := column.value(row), Timing):
                line |= {f"{column.key}_q1": timing.low, f"{column.key}_q3": timing.high}
        lines.append(line)
    write_table(file, [list(lines[0]), *(line.values() for line in lines)])


def plot_costs(rows: Sequence[ModelCosts], file: Path) -> None:
    """The rows as bars, one panel for each column."""
    panels = []
    for column in measured_columns(rows):
        timings = [timing for row in rows if isinstance(timing := column.value(row), Timing)]
        values = [float(column.number(row) or 0) for row in rows]
        texts = [column.text(row).partition(" ")[0] for row in rows]
        panels.append(Panel(column.title, values, texts, [(timing.low, timing.high) for timing in timings]))
    plot_comparison([row.name for row in rows], panels, file)


def main(options: CompareOptions) -> None:
    load_modules(options.modules)
    device = select_device(options.device)
    models = load_models(options)
    recorded: list[tuple[int, int] | None] = [model.imgsz for _, model in models if model.imgsz] or [
        None
    ]  # a yaml records none
    imgsz = chosen_side(options.imgsz, recorded, max(int(model.stride.max()) for _, model in models))
    with run_folder(options.project, options.name, options.exist_ok) as folder:
        rows = compare_models(models, options, imgsz, device)
        LOG.info("%s", cost_markdown(rows) if options.markdown else cost_text(rows))
        LOG.info(
            "%d px, batch %d; times: medians of %d calls ± half the distance of the quartiles; in brackets: to the "
            "first",
            imgsz,
            options.batch_size,
            options.repeats,
        )
        write_cost_csv(rows, folder / "compare.csv")
        plot_costs(rows, folder / "compare.png")
        LOG.info("results are in %s", folder)


if __name__ == "__main__":
    sys.exit(run_script(main, CompareOptions))
