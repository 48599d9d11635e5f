"""Rates, warm-up, accumulation and temperature over a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from models.common import Dynamic_conv2d
from utils.config.hyp import Hyp
from utils.training.optim import build_optimizer
from utils.training.schedule import (
    StepPlan,
    accumulate_steps,
    describe_change,
    learning_rates,
    lr_factor,
    plan_steps,
    set_learning_rates,
    temperature_at,
    warmup_iterations,
)

V61 = Hyp(warmup_v61=True)


def group(kind: str) -> dict[str, Any]:
    """A group of an optimizer as ``build_optimizer`` makes it."""
    return {"params": [nn.Parameter(torch.zeros(1))], "name": kind, "kind": kind, "lr_factor": 1.0}


def sgd() -> torch.optim.Optimizer:
    groups = [group(name) for name in ("no_decay", "decay", "bias")]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9)


@pytest.mark.parametrize("cosine", [False, True])
def test_the_factor_falls_from_one_to_lrf_through_their_mean(cosine: bool) -> None:
    assert lr_factor(0, 10, 0.2, cosine) == 1
    assert lr_factor(5, 10, 0.2, cosine) == pytest.approx(0.6)
    assert lr_factor(10, 10, 0.2, cosine) == pytest.approx(0.2)


def test_a_run_of_no_epochs_has_a_factor() -> None:
    assert lr_factor(0, 0, 0.1, True) == 1


@pytest.mark.parametrize(("name", "cosine"), [("linear", False), ("cos", True)])
@pytest.mark.parametrize("lrf", [0.01, 0.1])
def test_factors_are_those_of_the_reference(golden: Any, name: str, cosine: bool, lrf: float) -> None:
    expected = golden.array(f"lr/{name}_lrf{lrf}_300")
    assert [lr_factor(epoch, 300, lrf, cosine) for epoch in range(301)] == pytest.approx(expected.tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("epochs", "batches", "warmup_epochs", "ours", "v61"),
    [
        (300, 500, 3.0, 1500, 1500),
        (300, 100, 3.0, 300, 1000),
        (300, 13, 3.0, 100, 1000),  # the floors
        (10, 13, 3.0, 43, 1000),  # a third of 130
        (50, 1, 3.0, 16, 1000),
        (300, 100, 0.0, 0, 1000),
        (0, 100, 3.0, 0, 1000),
    ],
)
def test_warm_up_has_a_floor_and_takes_a_third_of_the_run_at_most(
    epochs: int, batches: int, warmup_epochs: float, ours: int, v61: int
) -> None:
    assert warmup_iterations(epochs, batches, warmup_epochs) == ours
    assert warmup_iterations(epochs, batches, warmup_epochs, v61=True) == v61


@pytest.mark.parametrize(("batch", "steps"), [(1, 64), (8, 8), (16, 4), (24, 3), (64, 1), (128, 1)])
def test_batches_accumulate_to_about_64_images(batch: int, steps: int) -> None:
    assert accumulate_steps(batch) == steps


def test_accumulation_never_exceeds_an_epoch() -> None:
    assert accumulate_steps(16, 3) == 3
    assert accumulate_steps(16, 0) == 1


def test_warm_up_rows_are_those_of_the_reference(golden: Any) -> None:
    for case in golden.json("tensors")["warmup"]:
        optimizer, hyp = sgd(), replace(V61, **case["hyp"])
        plan = plan_steps(case["epochs"], case["batches_per_epoch"], case["batch_size"], hyp)
        assert plan.warmup == case["nw"]
        for iteration, epoch, *expected in case["rows"]:
            set_learning_rates(optimizer, plan, iteration, epoch, hyp, case["schedule"] != "linear")
            accumulate = plan.accumulate_at(iteration)
            rates, momenta = learning_rates(optimizer), [group["momentum"] for group in optimizer.param_groups]
            found = [rates["decay"], rates["bias"], momenta[0], accumulate]
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-15), (case["batches_per_epoch"], iteration)
            assert rates["no_decay"] == rates["decay"]
            assert len(set(momenta)) == 1


@pytest.mark.parametrize("run", range(3))
def test_rates_of_whole_runs_are_those_of_the_reference(golden: Any, run: int) -> None:
    """The rates of the last batch of every epoch, as in the results file; 13 batches of 16 images."""
    expected = golden.json("train_curve")["runs"][run]
    epochs, optimizer = expected["epochs_run"], sgd()
    plan = replace(plan_steps(epochs, 13, 16, V61), warmup=expected["warmup_iterations"])
    assert (plan.iterations, plan.optimizer_steps) == (expected["iterations"], expected["optimizer_steps"])
    columns = [i for i, name in enumerate(expected["columns"]) if name.startswith("lr group")]
    for row in expected["rows"]:
        set_learning_rates(optimizer, plan, 13 * row[0] + 12, row[0], V61)
        rates = learning_rates(optimizer)
        found = [rates[name] for name in ("no_decay", "decay", "bias")]
        assert found == pytest.approx([row[i] for i in columns], rel=1e-6), row[0]


def test_accumulation_and_weight_decay_are_those_of_the_reference(golden: Any) -> None:
    for case in golden.json("tensors")["hyp_scaling"]:
        plan = plan_steps(300, 1000, case["batch_size"], V61)
        assert plan.accumulate == case["accumulate"]
        assert 0.0005 * plan.decay_factor == pytest.approx(case["weight_decay"], rel=1e-12)


def test_after_the_warm_up_rates_follow_the_epoch_alone() -> None:
    optimizer, hyp = sgd(), Hyp()
    plan = plan_steps(100, 10, 16, hyp)
    set_learning_rates(optimizer, plan, 505, 50, hyp)
    assert plan.accumulate_at(505) == 4
    assert list(learning_rates(optimizer).values()) == pytest.approx([0.01 * lr_factor(50, 100, 0.01, False)] * 3)
    assert optimizer.param_groups[0]["momentum"] == hyp.momentum


def test_the_betas_of_adam_are_left_alone() -> None:
    optimizer = torch.optim.Adam([group("bias")], betas=(0.9, 0.99))
    set_learning_rates(optimizer, plan_steps(100, 10, 16, Hyp()), 0, 0, Hyp())
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)
    assert learning_rates(optimizer) == {"bias": pytest.approx(0.1)}


def walk(plan: StepPlan, iterations: int) -> list[int]:
    """Where the training loop steps, in plain steps."""
    last, steps = -1, []
    for iteration in range(iterations):
        if iteration - last >= plan.accumulate_at(iteration):
            last = iteration
            steps.append(iteration)
    return steps


def test_step_counts_are_those_of_the_reference(golden: Any) -> None:
    for case in golden.json("tensors")["optimizer_steps"]:
        plan = plan_steps(300, case["batches_per_epoch"], case["batch_size"], V61)
        assert plan.count_steps(case["iterations"]) == case["step_count"]
        steps = walk(plan, case["iterations"])
        assert [i for i in steps if i < 60] == case["first60"]
        assert case["step_at"] is None or steps == case["step_at"]


@pytest.mark.parametrize("batches", [1, 2, 3, 5, 13, 77])
@pytest.mark.parametrize("batch_size", [1, 6, 16, 24, 48, 200])
@pytest.mark.parametrize("hyp", [Hyp(), V61, Hyp(warmup_epochs=0)])
def test_the_plan_counts_what_the_loop_does(batches: int, batch_size: int, hyp: Hyp) -> None:
    plan = plan_steps(40, batches, batch_size, hyp)
    steps = walk(plan, 40 * batches)
    assert plan.optimizer_steps == len(steps)
    assert plan.warmup_steps == sum(step < plan.warmup for step in steps)


@pytest.mark.parametrize("batches", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("hyp", [Hyp(), V61])
def test_every_epoch_of_a_tiny_set_has_an_optimizer_step(batches: int, hyp: Hyp) -> None:
    steps = walk(plan_steps(50, batches, 4, hyp), 50 * batches)
    assert {step // batches for step in steps} == set(range(50))


def test_a_run_of_no_epochs_has_no_steps() -> None:
    plan = plan_steps(0, 10, 16, Hyp())
    assert (plan.optimizer_steps, plan.warmup_steps) == (0, 0)
    assert plan.describe()


def test_the_plan_warns_of_a_run_within_its_warm_up() -> None:
    assert "ends before its warm-up" in plan_steps(10, 13, 16, V61).describe()
    assert "ends before its warm-up" not in plan_steps(10, 13, 16, Hyp()).describe()


def test_the_plan_warns_of_few_steps() -> None:
    assert "so few optimizer steps (50)" in plan_steps(50, 1, 16, Hyp()).describe()
    assert "few" not in plan_steps(100, 13, 16, Hyp()).describe()
    assert "few" not in plan_steps(0, 13, 16, Hyp()).describe()


def test_temperature_falls_by_the_step_and_stays_at_the_end() -> None:
    expected = [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1, 1]
    assert [temperature_at(epoch, 14, Hyp()) for epoch in range(14)] == expected


def test_the_shortest_run_of_the_full_schedule_has_12_epochs() -> None:
    assert [temperature_at(epoch, 12, Hyp()) for epoch in (0, 1, 11)] == [34, 31, 1]


def test_in_a_short_run_the_temperature_falls_in_equal_steps() -> None:
    assert [temperature_at(epoch, 4, Hyp()) for epoch in range(4)] == pytest.approx([34, 23, 12, 1])
    assert temperature_at(7, 8, Hyp()) == 1


@pytest.mark.parametrize("epochs", [0, 1])
def test_runs_of_no_or_one_epoch_are_at_the_end_temperature(epochs: int) -> None:
    assert temperature_at(0, epochs, Hyp()) == 1


def test_temperature_never_rises_nor_leaves_its_bounds() -> None:
    for epochs in range(1, 30):
        course = [temperature_at(epoch, epochs, Hyp()) for epoch in range(epochs + 3)]
        assert course == sorted(course, reverse=True)
        assert course[epochs - 1] == 1
        assert 1 <= min(course) <= max(course) <= 34


def test_a_step_of_zero_keeps_the_start() -> None:
    assert temperature_at(5, 10, Hyp(temperature_step=0.0)) == 34


def test_equal_start_and_end_are_constant() -> None:
    assert temperature_at(0, 1, Hyp(temperature_start=3.0, temperature_end=3.0)) == 3


def test_what_changes_in_an_extended_run_is_logged() -> None:
    # 0.01 * (0.01 + 0.99 * (1 - 5/10)) = 0.00505; at the end of 5 epochs 0.0001. In 10 epochs T falls by 33/9 each.
    text = describe_change(5, 10, 5, Hyp(), cosine=False)
    assert text == (
        "10 epochs instead of 5: in epoch 6 the learning rate is 0.00505 instead of 0.0001, "
        "the temperature of dynamic layers 15.6667 instead of 1"
    )


def test_a_temperature_that_does_not_change_is_not_logged() -> None:
    text = describe_change(40, 50, 40, Hyp(), cosine=False)
    assert text.startswith("50 epochs instead of 40") and "temperature" not in text


def test_with_a_span_the_temperature_falls_batch_by_batch_over_that_share_of_the_run() -> None:
    hyp = Hyp(temperature_span=0.1)
    course = [temperature_at(iteration / 50, 20, hyp) for iteration in range(1000)]  # 20 epochs of 50 batches
    assert course[:2] == [34, pytest.approx(34 - 33 / 100)]
    assert course[50] == pytest.approx(17.5)
    assert course[100:] == [1] * 900
    assert temperature_at(0, 0, hyp) == 1


def test_without_a_span_the_temperature_is_the_same_for_a_whole_epoch() -> None:
    assert {temperature_at(iteration / 7, 14, Hyp()) for iteration in range(21, 28)} == {25}


def test_a_group_with_a_factor_has_that_multiple_of_the_common_rate_in_the_warm_up_and_after_it() -> None:
    optimizer = build_optimizer(Dynamic_conv2d(4, 8, 3), "SGD", Hyp(kernel_lr=4.0))
    plan = plan_steps(100, 10, 16, Hyp())
    for iteration in (10, 500):
        set_learning_rates(optimizer, plan, iteration, iteration // 10, Hyp())
        rates = learning_rates(optimizer)
        assert rates["decay x4"] == pytest.approx(4 * rates["no_decay"])
    assert rates["bias x4"] == pytest.approx(4 * rates["no_decay"])


def test_the_warm_up_of_biases_starts_from_one_rate_whatever_their_factor() -> None:
    optimizer = build_optimizer(Dynamic_conv2d(4, 8, 3), "SGD", Hyp(kernel_lr=4.0))
    set_learning_rates(optimizer, plan_steps(100, 10, 16, Hyp()), 0, 0, Hyp())
    assert learning_rates(optimizer)["bias x4"] == 0.1


@pytest.mark.parametrize(
    ("epochs", "batches", "short"), [(1, 5000, True), (2, 20, True), (3, 400, False), (300, 10, False)]
)
def test_a_run_of_one_epoch_or_of_few_steps_is_too_short_to_assess_the_routing(
    epochs: int, batches: int, short: bool
) -> None:
    assert plan_steps(epochs, batches, 16, Hyp()).too_short is short
