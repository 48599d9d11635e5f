"""From the yaml of a study to its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.yolo import Model
from tools.study.plan import Plan, load_plan, model_yaml
from utils.config.paths import ROOT
from utils.core.errors import InputError

CONTENT: dict[str, Any] = {
    "data": {"digits6": None, "mine": "mine.yaml", "mine6": {"six_conditions_of": "mine.yaml"}},
    "train": {"imgsz": 64, "epochs": 4},
    "hyp": {"mosaic": 0.5, "cls": 2.0},
    "arms": {
        "static": {"cfg": "yolov5n.yaml"},
        "a": {"cfg": "yolov5n_dynamic_head.yaml", "hyp": {"temperature_start": 1}},
        "b": {"cfg": "yolov5n_dynamic_head.yaml", "hyp": {"kernel_lr": 4, "cls": 1.0}, "train": {"epochs": 2}},
        "c": {"cfg": "yolov5n_dynamic_head.yaml", "layers": {"norm": True}},
    },
    "phases": [
        {"name": "tune", "data": ["digits6"], "arms": "all", "lr0": [0.01, 0.02], "seeds": [9]},
        {"name": "pilot", "data": ["digits6"], "arms": "all", "lr0": "tune", "seeds": [0, 1], "score": ["val", "test"]},
        {
            "name": "final", "data": ["digits6", "mine"], "lr0": "tune", "seeds": [5],
            "arms": {"keep": ["static"], "best": 2, "of": "pilot", "among": ["a", "b", "c"], "together": True},
        },
    ],
}  # fmt: skip


def plan_of(tmp_path: Path, **changes: Any) -> Plan:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False), encoding="utf-8")
    return load_plan(tmp_path / "plan.yaml")


def row(phase: str, arm: str, lr0: float, val: float | str, data: str = "digits6") -> dict[str, str]:
    return {"phase": phase, "data": data, "arm": arm, "lr0": str(lr0), "val_map": str(val)}


def test_a_tuning_phase_has_every_rate_of_every_arm(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    runs = list(plan.runs(plan.phases[0], []))
    assert [(run.arm, run.lr0, run.seed) for run in runs] == [
        (arm, rate, 9) for arm in ("static", "a", "b", "c") for rate in (0.01, 0.02)
    ]
    assert runs[4].hyp == {"mosaic": 0.5, "cls": 1.0, "kernel_lr": 4, "lr0": 0.01}
    assert runs[4].train == {"imgsz": 64, "epochs": 2}


def test_a_later_phase_takes_the_rate_with_the_best_val_score_and_a_diverged_run_counts_as_none(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    rows = [row("tune", arm, rate, val) for arm in "abc" for rate, val in ((0.01, 0.2), (0.02, 0.3))]
    rows += [row("tune", "static", 0.01, 0.1), row("tune", "static", 0.02, "")]
    chosen = {run.arm: run.lr0 for run in plan.runs(plan.phases[1], rows)}
    assert chosen == {"static": 0.01, "a": 0.02, "b": 0.02, "c": 0.02}
    with pytest.raises(InputError, match="phase pilot: phase tune has no result of c yet"):
        list(plan.runs(plan.phases[1], [each for each in rows if each["arm"] != "c"]))


def test_the_best_arms_of_a_phase_go_on_with_the_kept_ones_and_together(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    rows = [row("tune", arm, rate, 0.1) for arm, rate in (("static", 0.01), ("a", 0.01), ("b", 0.02), ("c", 0.01))]
    rows += [row("pilot", arm, 0.01, val) for arm, val in (("a", 0.2), ("b", 0.4), ("c", 0.1), ("b", 0.3))]
    runs = list(plan.runs(plan.phases[2], rows))
    assert [(run.data, run.arm) for run in runs] == [
        (data, arm) for data in ("digits6", "mine") for arm in ("static", "b", "a", "b+a")
    ]
    assert runs[3].hyp == {"mosaic": 0.5, "cls": 1.0, "kernel_lr": 4, "temperature_start": 1, "lr0": 0.02}
    assert plan.count(plan.phases[2], []) == len(runs)


def test_a_changed_setting_makes_another_run_and_the_same_plan_the_same_runs(tmp_path: Path) -> None:
    first, again, other = (
        [run.name for run in plan.runs(plan.phases[0], [])]
        for plan in (plan_of(tmp_path), plan_of(tmp_path), plan_of(tmp_path, train={"imgsz": 96}))
    )
    assert first == again and not set(first) & set(other)


def test_an_arm_changes_the_model_yaml(tmp_path: Path) -> None:
    arms = {
        "x": {
            "cfg": "yolov5n_dynamic_all.yaml", "model": {"width_multiple": 0.125}, "replace": {"C3Dynamic": "C3"},
            "layers": {"norm": True}, "channels": {1024: 1152},
        }
    }  # fmt: skip
    plan = plan_of(tmp_path, arms=arms, phases=CONTENT["phases"][:1])
    content = model_yaml(next(plan.runs(plan.phases[0], [])))
    assert content["backbone"][0] == [-1, 1, "DynamicConv", [64, 6, 2, 2, {"norm": True}]]
    assert content["backbone"][2] == [-1, 3, "C3", [128]]
    assert content["backbone"][7][3][0] == 1152
    assert Model(content).model[7].conv.weight.shape[1] == 144


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": {"a": {"cfg": "yolov5n.yaml", "hyb": {}}}}, "arm a: 'hyb' is unknown; did you mean 'hyp'"),
        ({"arms": {"a": {"cfg": "yolov5n.yaml", "hyp": {"lr": 1}}}}, "arm a: hyp: unknown hyper-parameter 'lr'"),
        ({"arms": {"a": {"cfg": "yolov5n.yaml", "train": {"seed": 1}}}}, "arm a: train: 'seed' is unknown"),
        ({"data": {"mine": None}}, "data without a yaml: 'mine' is unknown; known: digits6, digits1"),
        ({"baselines": ["stati"]}, "baselines: 'stati' is unknown; did you mean 'static'"),
        ({"phases": [{"name": "p", "data": ["digits6"], "arms": "all", "lr0": "tune", "seeds": [0]}]}, "lr0: 'tune'"),
    ],
)
def test_a_mistake_in_a_plan_is_named_before_anything_runs(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_of(tmp_path, **changes)


def test_the_plan_of_this_repository_is_valid_and_builds_its_models() -> None:
    plan = load_plan(ROOT / "tools/study/plan.yaml")
    assert [(phase.name, plan.count(phase, [])) for phase in plan.phases] == [
        ("tune", 36), ("pilot", 27), ("tune_ft", 44), ("pilot_ft", 33), ("final", 70), ("final_ft", 50), ("plain", 30),
        ("control", 25),
    ]  # fmt: skip
    protocol = (ROOT / "tools/study/PROTOCOL.md").read_text(encoding="utf-8")
    for phase in plan.phases:
        assert f"| {phase.name} | {plan.count(phase, [])} |" in protocol, phase.name
    assert all(arm in protocol for arm in plan.arms)
