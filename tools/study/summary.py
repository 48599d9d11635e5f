"""Summary of a study: a table per data set and phase, paired differences with intervals, charts of every seed."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.study.plan import Plan, Row
from utils.plots.figure import MAIN_COLOR, new_figure, save_figure, tidy

LOG = logging.getLogger(__name__)
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """An arm against another on the same seeds, in points of mAP@.5:.95 (0..100).

    ``low`` and ``high`` bound the mean at 95 % by Student's t; nan with fewer than two seeds. ``p`` is that of a
    two-sided sign test.
    """

    seeds: tuple[int, ...]
    each: tuple[float, ...]
    mean: float
    low: float
    high: float
    wins: int
    p: float

    def __str__(self) -> str:
        if not self.each:
            return ""
        interval = "" if math.isnan(self.low) else f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.mean:+.2f}{interval} {self.wins}/{len(self.each)} p {self.p:.3f}"


def paired(ours: dict[int, float], theirs: dict[int, float]) -> Difference:
    """The difference of two arms over the seeds that both have; scores 0..1 by seed."""
    from scipy import stats  # slow to import

    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    each = np.array([100 * (ours[seed] - theirs[seed]) for seed in seeds])
    if not len(each):
        return Difference((), (), math.nan, math.nan, math.nan, 0, math.nan)
    mean, half = float(each.mean()), math.nan
    if len(each) > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5)
    wins, losses = int((each > 0).sum()), int((each < 0).sum())
    p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return Difference(seeds, tuple(each.tolist()), mean, mean - half, mean + half, wins, p)


class Group:
    """The rows of a phase on one data set."""

    def __init__(self, rows: Sequence[Row], baselines: Sequence[str]) -> None:
        self.rows = [row for row in rows if not row["error"]]
        self.arms = list(dict.fromkeys(row["arm"] for row in self.rows))
        self.split = "test" if any(row["test_map"] for row in self.rows) else "val"
        means = {arm: np.mean(list(self.scores(arm).values())) for arm in baselines if self.scores(arm)}
        self.baselines = list(means)
        self.best_baseline = max(means, key=lambda arm: float(means[arm])) if means else ""

    def scores(self, arm: str) -> dict[int, float]:
        """mAP@.5:.95 by seed."""
        column = f"{self.split}_map"
        return {int(row["seed"]): float(row[column]) for row in self.rows if row["arm"] == arm and row[column]}

    def mean(self, arm: str, column: str) -> float:
        values = [float(row[column]) for row in self.rows if row["arm"] == arm and row.get(column)]
        return float(np.mean(values)) if values else math.nan

    def table(self) -> list[str]:
        """Lines of markdown: an arm each."""
        heads = ["arm", "lr0", "n", "mAP@.5:.95", *(f"against {b}" for b in self.baselines)]
        heads += ["GFLOPs", "H/lnK", "sd of pi", "mean pi", "same", "other", "min"]
        lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
        reference = self.mean(self.best_baseline, "gflops") if self.best_baseline else math.nan
        for arm in self.arms:
            values = 100 * np.array(list(self.scores(arm).values()))
            spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
            rate = next(row["lr0"] for row in self.rows if row["arm"] == arm)
            more = 100 * (self.mean(arm, "gflops") / reference - 1)
            cells = [arm, rate, str(len(values)), f"{values.mean():.2f}{spread}"]
            cells += [
                "" if base == arm else str(paired(self.scores(arm), self.scores(base))) for base in self.baselines
            ]
            cells.append(f"{self.mean(arm, 'gflops'):.4f}" + ("" if math.isnan(more) else f" ({more:+.1f} %)"))
            cells += [_number(self.mean(arm, f"{self.split}_{key}"), 3) for key in ("entropy", "sd_pi")]
            cells += [
                _number(100 * self.mean(arm, f"{self.split}_map_{kind}_pi")) for kind in ("mean", "same", "other")
            ]
            cells.append(_number(self.mean(arm, "minutes"), 1))
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def draw(self, file: Path, title: str) -> None:
        """Every seed of every arm, and the differences to the better baseline with their intervals."""
        figure = new_figure(10, 1.2 + 0.34 * len(self.arms))
        left, right = figure.subplots(1, 2, sharey=True)
        for place, arm in enumerate(self.arms):
            values = [100 * value for value in self.scores(arm).values()]
            left.plot(values, [place] * len(values), "o", color=MAIN_COLOR, alpha=0.5, markersize=5)
            left.plot([np.mean(values)], [place], "|", color="black", markersize=14)
            base = self.best_baseline
            if base and arm != base:
                difference = paired(self.scores(arm), self.scores(base))
                right.plot(
                    difference.each, [place] * len(difference.each), "o", color=MAIN_COLOR, alpha=0.35, markersize=4
                )
                right.plot([difference.mean], [place], "D", color="black", markersize=5)
                if not math.isnan(difference.low):
                    right.hlines(place, difference.low, difference.high, color="black", linewidth=1.4)
        right.axvline(0, color="black", linewidth=0.8)
        left.set_yticks(range(len(self.arms)), self.arms)
        left.invert_yaxis()
        tidy(left, f"{title}: mAP@.5:.95 of {self.split}, every seed")
        tidy(right, f"difference to {self.best_baseline}, 95 % interval")
        save_figure(figure, file)


def _number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def draw_routing(result: Path, file: Path, title: str) -> bool:
    """The mean kernel weights of each layer under each condition; False when the run has none."""
    layers = json.loads(result.read_text(encoding="utf-8")).get("routing") or {}
    if not layers:
        return False
    columns = min(6, len(layers))
    lines = -(-len(layers) // columns)
    figure = new_figure(1.9 * columns + 1.0, 1.6 * lines + 0.6)
    axes_grid = figure.subplots(lines, columns, squeeze=False)
    for axes, (name, means) in zip(axes_grid.flat, layers.items()):
        axes.imshow(np.array(list(means.values())), vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set_title(name, fontsize=8)
        axes.set_yticks(range(len(means)), list(means) if axes in axes_grid[:, 0] else [""] * len(means), fontsize=7)
        axes.set_xticks([])
    for axes in list(axes_grid.flat)[len(layers) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=9)
    save_figure(figure, file)
    return True


def write_summary(plan: Plan, rows: Sequence[Row], output: Path) -> None:
    """``summary.md`` and the charts of all phases, in ``output``; the tables in the log as well."""
    text: list[str] = []
    for phase in plan.phases:
        for data in phase.data:
            chosen = [row for row in rows if (row["phase"], row["data"]) == (phase.name, data)]
            group = Group(chosen, plan.baselines)
            if not group.rows:
                continue
            failed = [row for row in chosen if row["error"]]
            text += ["", f"## {phase.name}: {data} ({group.split}, {len(group.rows)} runs)", "", *group.table()]
            text += ["", *(f"- {r['arm']}, lr0 {r['lr0']}, seed {r['seed']}: {r['error']}" for r in failed)]
            group.draw(output / f"{phase.name}-{data}.png", f"{phase.name}, {data}")
            for arm in group.arms:
                first = next(row for row in group.rows if row["arm"] == arm)
                result = output / "runs" / first["run"] / "result.json"
                if len(phase.seeds) > 1 and result.exists():
                    draw_routing(result, output / f"{phase.name}-{data}-{arm}-routing.png", first["run"])
    (output / "summary.md").write_text("\n".join(text).lstrip() + "\n", encoding="utf-8")
    for line in text:
        LOG.info(line)
    LOG.info("tables and charts are in %s", output)
