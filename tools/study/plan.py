"""The plan of a study: a yaml that says which runs there are. The format is described in README.md of this folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from models.parser import read_model_yaml
from tools.study.data import COMPOSED
from utils.config.hyp import Hyp
from utils.config.train_options import TrainOptions
from utils.core.errors import InputError, suggestion
from utils.core.files import read_yaml

Row = Mapping[str, str]  # of results.csv
ARM_KEYS = ("cfg", "model", "replace", "layers", "channels", "train", "hyp", "note")
# What the harness sets itself.
_OWN_OPTIONS = ("data", "cfg", "hyp", "seed", "project", "name", "exist_ok", "resume", "noval")


@dataclass(frozen=True)
class DataSource:
    """Where a data set comes from: a yaml as it is, a yaml whose images get six conditions, or neither (composed)."""

    yaml: str = ""
    six_conditions_of: str = ""


@dataclass(frozen=True)
class Run:
    """One training run: everything that decides its result."""

    phase: str
    data: str
    arm: str
    lr0: float
    seed: int
    source: DataSource
    cfg: str
    changes: Mapping[str, Any]  # of the model yaml: model, replace, layers, channels
    train: Mapping[str, Any]
    hyp: Mapping[str, Any]
    score: tuple[str, ...]

    @property
    def settings(self) -> str:
        """What decides the result, as JSON in one line."""
        parts = {key: value for key, value in asdict(self).items() if key not in ("phase", "arm", "score")}
        return json.dumps(parts, sort_keys=True)

    @property
    def name(self) -> str:
        """A folder name; it ends in a sum of the settings, so that a changed plan makes new runs."""
        sum_of = hashlib.sha1(self.settings.encode()).hexdigest()[:6]
        return f"{self.phase}-{self.data}-{self.arm}-lr{self.lr0:g}-s{self.seed}-{sum_of}"


@dataclass(frozen=True)
class Phase:
    """A part of the study whose runs depend on the parts before it at most."""

    name: str
    data: tuple[str, ...]
    arms: Any
    lr0: Any
    seeds: tuple[int, ...]
    score: tuple[str, ...]
    train: Mapping[str, Any] = field(default_factory=dict)
    hyp: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A study."""

    source: str
    data: Mapping[str, DataSource]
    arms: Mapping[str, Mapping[str, Any]]
    phases: tuple[Phase, ...]
    train: Mapping[str, Any]
    hyp: Mapping[str, Any]
    baselines: tuple[str, ...]

    def runs(self, phase: Phase, rows: Sequence[Row]) -> Iterator[Run]:
        """The runs of a phase, seed by seed, given the rows of finished ones.

        Raises:
            InputError: a phase that this one builds on has no result for an arm.
        """
        for seed in phase.seeds:
            for data in phase.data:
                for name, arm in self.arms_of(phase, data, rows).items():
                    for rate in self._rates(phase, data, name, rows):
                        train = {**self.train, **phase.train, **arm.get("train", {})}
                        hyp = {**self.hyp, **phase.hyp, **arm.get("hyp", {}), "lr0": rate}
                        changes = {key: arm[key] for key in ("model", "replace", "layers", "channels") if key in arm}
                        yield Run(
                            phase.name, data, name, rate, seed, self.data[data], str(arm["cfg"]), changes, train, hyp,
                            phase.score,
                        )  # fmt: skip

    def count(self, phase: Phase, rows: Sequence[Row]) -> int:
        """How many runs a phase has, also before those it builds on are done."""
        try:
            return len(list(self.runs(phase, rows)))
        except InputError:
            arms = phase.arms
            n = len(arms["keep"]) + arms["best"] + bool(arms.get("together")) if isinstance(arms, dict) else len(arms)
            rates = len(phase.lr0) if isinstance(phase.lr0, list) else 1
            return len(phase.seeds) * len(phase.data) * n * rates

    def arms_of(self, phase: Phase, data: str, rows: Sequence[Row]) -> dict[str, Mapping[str, Any]]:
        """The arms of a phase on a data set, by name."""
        if not isinstance(phase.arms, dict):
            return {name: self.arms[name] for name in phase.arms}
        chosen, among = phase.arms, phase.arms["among"]
        ranked = sorted(among, key=lambda name: -_mean_val(rows, chosen["of"], data, name))
        best = ranked[: chosen["best"]]
        arms = {name: self.arms[name] for name in (*chosen["keep"], *best)}
        if chosen.get("together"):
            arms["+".join(best)] = merged([self.arms[name] for name in best])
        return arms

    def _rates(self, phase: Phase, data: str, arm: str, rows: Sequence[Row]) -> list[float]:
        if isinstance(phase.lr0, list):
            return phase.lr0
        # A combination trains at the rate of its first part, which is the better one.
        for name in (arm, arm.partition("+")[0]):
            if tried := rows_of(rows, phase.lr0, data, name):
                return [float(max(tried, key=lambda row: float(row["val_map"] or 0))["lr0"])]
        raise InputError(f"phase {phase.name}: phase {phase.lr0} has no result of {arm} yet")


def merged(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several arms in one; where they contradict each other the first counts."""
    result: dict[str, Any] = {}
    for arm in reversed(arms):
        for key, value in arm.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = {**result[key], **value} if both else value
    return result


def rows_of(rows: Sequence[Row], phase: str, data: str, arm: str) -> list[Row]:
    """The rows of an arm in a phase: those on ``data``, or if there are none on the other sets of that phase."""
    of_arm = [row for row in rows if (row["phase"], row["arm"]) == (phase, arm)]
    return [row for row in of_arm if row["data"] == data] or of_arm


def _mean_val(rows: Sequence[Row], phase: str, data: str, arm: str) -> float:
    of_arm = rows_of(rows, phase, data, arm)
    if not of_arm:
        raise InputError(f"phase {phase} has no result of {arm} yet")
    return sum(float(row["val_map"] or 0) for row in of_arm) / len(of_arm)


def model_yaml(run: Run) -> dict[str, Any]:
    """The model yaml of a run: ``cfg`` with the changes of its arm."""
    content, _ = read_model_yaml(run.cfg)
    content |= run.changes.get("model", {})
    swaps, options, widths = (run.changes.get(key, {}) for key in ("replace", "layers", "channels"))
    for part in ("backbone", "head"):
        rows = []
        for source, number, module, args in content[part]:
            given = list(args)
            if given and given[0] in widths:
                given[0] = widths[given[0]]
            module = swaps.get(module, module)
            if options and "Dynamic" in module:
                own = given.pop() if isinstance(given[-1], dict) else {}
                given.append({**own, **options})
            rows.append([source, number, module, given])
        content[part] = rows
    return content


def load_plan(path: str | Path) -> Plan:
    """Read a plan and check everything that can be checked before the first run.

    Raises:
        FileNotFoundError: no such file.
        InputError: a key, an arm, a data set or a value that does not exist.
    """
    content = read_yaml(path)
    _keys(content, ("data", "arms", "phases"), ("train", "hyp", "baselines"), str(path))
    arms = {str(name): _arm(arm, f"{path}: arm {name}") for name, arm in content["arms"].items()}
    data = {str(name): _data(str(name), source, str(path)) for name, source in content["data"].items()}
    phases: list[Phase] = []
    for raw in content["phases"]:
        where = f"{path}: phase {raw.get('name') if isinstance(raw, dict) else raw}"
        phases.append(_phase(raw, where, arms, data, [phase.name for phase in phases]))
    baselines = tuple(content.get("baselines", ()))
    _known(baselines, arms, f"{path}: baselines")
    plan = Plan(str(path), data, arms, tuple(phases), content.get("train", {}), content.get("hyp", {}), baselines)
    for where, part in [("", plan.train), *((f" phase {p.name}", p.train) for p in phases)]:
        _train_keys(part, f"{path}:{where} train")
    for where, part in [("", plan.hyp), *((f" phase {p.name}", p.hyp) for p in phases)]:
        Hyp.from_dict(dict(part), f"{path}:{where} hyp")
    return plan


def _keys(content: Any, needed: Sequence[str], others: Sequence[str], where: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected 'key: value' lines, found {type(content).__name__}")
    missing = [key for key in needed if key not in content]
    if missing:
        raise InputError(f"{where}: '{missing[0]}' is missing")
    _known(content, (*needed, *others), where)


def _known(names: Sequence[Any] | Mapping[str, Any], known: Sequence[str] | Mapping[str, Any], where: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(
                f"{where}: '{name}' is unknown{suggestion(str(name), list(known))}; known: {', '.join(known)}"
            )


def _train_keys(part: Mapping[str, Any], where: str) -> None:
    _known(part, [f.name for f in fields(TrainOptions) if f.name not in _OWN_OPTIONS], where)


def _data(name: str, raw: Any, where: str) -> DataSource:
    if raw is None:
        _known([name], COMPOSED, f"{where}: data without a yaml")
        return DataSource()
    if isinstance(raw, str):
        return DataSource(yaml=raw)
    _keys(raw, ("six_conditions_of",), (), f"{where}: data {name}")
    return DataSource(six_conditions_of=str(raw["six_conditions_of"]))


def _arm(raw: Any, where: str) -> Mapping[str, Any]:
    _keys(raw, ("cfg",), ARM_KEYS[1:], where)
    _train_keys(raw.get("train", {}), f"{where}: train")
    Hyp.from_dict(dict(raw.get("hyp", {})), f"{where}: hyp")
    read_model_yaml(str(raw["cfg"]))
    return dict(raw)


def _phase(
    raw: Any, where: str, arms: Mapping[str, Any], data: Mapping[str, Any], before: Sequence[str]
) -> Phase:  # fmt: skip
    _keys(raw, ("name", "data", "arms", "lr0", "seeds"), ("score", "train", "hyp", "note"), where)
    _known(raw["data"], data, f"{where}: data")
    chosen = list(arms) if raw["arms"] == "all" else raw["arms"]
    if isinstance(chosen, dict):
        _keys(chosen, ("keep", "best", "of", "among"), ("together",), f"{where}: arms")
        _known([*chosen["keep"], *chosen["among"]], arms, f"{where}: arms")
        _known([chosen["of"]], before, f"{where}: arms: of")
    else:
        _known(chosen, arms, f"{where}: arms")
    if isinstance(raw["lr0"], list):
        rates: Any = [float(rate) for rate in raw["lr0"]]
    else:
        _known([raw["lr0"]], before, f"{where}: lr0")
        rates = raw["lr0"]
    score = tuple(raw.get("score", ("val",)))
    _known(score, ("val", "test"), f"{where}: score")
    return Phase(
        raw["name"], tuple(raw["data"]), chosen, rates, tuple(int(seed) for seed in raw["seeds"]), score,
        raw.get("train", {}), raw.get("hyp", {}),
    )  # fmt: skip
