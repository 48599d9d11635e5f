"""A checkpoint that is not a whole run of its own model is refused in one line that names the part."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.yolo import Model
from utils.checkpoint import Checkpoint
from utils.checkpoint.format import to_plain_types
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.training import resume_checks
from utils.training.optim import build_optimizer
from utils.training.optimizer_state import load_optimizer_state, optimizer_state, pending_gradients, random_states
from utils.training.resume_checks import check_run_fits

CONV, NORM = "model.0.conv.weight", "model.0.bn.weight"
Change = Callable[[Checkpoint], Any]


def make(optimizer: str, frozen: str = "") -> tuple[Model, Checkpoint]:
    """A model after a step, its next gradient waiting, and what is saved of it."""
    torch.manual_seed(0)
    model = Model("yolov5n.yaml", nc=2)
    if frozen:
        model.get_parameter(frozen).requires_grad_(False)
    steps = build_optimizer(model, optimizer, Hyp())
    for _ in range(2):
        steps.step()
        steps.zero_grad()
        torch.stack([level.sum() for level in model(torch.rand(2, 3, 64, 64))]).sum().backward()
    notes = {
        "epoch": 1, "last_step": 3, "class_map": [0.0, 0.5], "gradients": pending_gradients(model), "warmup": 100,
        "early_stop": {"best_epoch": 1, "best_fitness": 0.4, "since": 0, "possible_stop": False}, "images": 4,
        "position": {"batches": 2, "skipped": 0, "sums": [0.1, 0.2, 0.3], "seconds": 1.5},
    }  # fmt: skip
    checkpoint = Checkpoint(
        model_yaml={}, nc=2, names=["a", "b"], stride=[8.0, 16.0, 32.0], model=to_plain_types(model.state_dict()),
        ema=to_plain_types(model.state_dict()), optimizer=to_plain_types(optimizer_state(steps, model)),
        hyp=Hyp().to_dict(),
        train_state=to_plain_types(notes), rng=to_plain_types(random_states(torch.device("cpu"))),
    )  # fmt: skip
    return model, checkpoint


@pytest.fixture(scope="module", params=["SGD", "AdamW"])
def run(request: pytest.FixtureRequest) -> tuple[str, Model, Checkpoint]:
    return request.param, *make(request.param)


def state(checkpoint: Checkpoint) -> dict[str, dict[str, torch.Tensor]]:
    assert checkpoint.optimizer is not None
    return checkpoint.optimizer["state"]


def group(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    assert checkpoint.optimizer is not None
    return next(each for each in checkpoint.optimizer["groups"] if each["name"] == name)


def buffer_of(checkpoint: Checkpoint, name: str) -> tuple[dict[str, torch.Tensor], str]:
    """The state of a parameter and the name of a tensor of its shape in it."""
    values = state(checkpoint)[name]
    return values, next(key for key in values if key != "step")


def put(checkpoint: Checkpoint, name: str, change: Callable[[torch.Tensor], Any]) -> None:
    values, key = buffer_of(checkpoint, name)
    values[key] = change(values[key])


def filled(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


SPOILT: dict[str, tuple[Change, str]] = {
    "a group is missing": (lambda c: c.optimizer["groups"].pop(), "groups are no_decay, decay, and have to be"),
    "a group is there twice": (
        lambda c: c.optimizer["groups"].__setitem__(2, c.optimizer["groups"][0]), "no_decay, decay, no_decay, and"
    ),
    "there are no groups": (lambda c: c.optimizer.pop("groups"), "optimizer: 'groups' is missing"),
    "groups are a number": (lambda c: c.optimizer.update(groups=3), "'groups' is of a wrong kind"),
    "norms decay": (lambda c: group(c, "no_decay").update(weight_decay=0.1), "no_decay: weight_decay is 0.1"),
    "names of groups are exchanged": (
        lambda c: (group(c, "decay").update(name="x"), group(c, "no_decay").update(name="decay"),
                   group(c, "x").update(name="no_decay")), "no_decay: weight_decay is 0.0005",
    ),
    "a norm is in the group of the others": (
        lambda c: group(c, "decay")["param_names"].append(NORM), f"'{NORM}' does not belong to this group"
    ),
    "a parameter is in no group": (lambda c: group(c, "bias")["param_names"].pop(), "group bias: .* is missing"),
    "a rate that is not a number": (lambda c: group(c, "bias").update(lr=math.nan), "bias: lr is nan"),
    "a rate that is text": (lambda c: group(c, "bias").update(lr="0.1"), "'lr' is of a wrong kind"),
    "a momentum is cut": (lambda c: put(c, CONV, lambda t: t[:-1]), f"{CONV}: .* has to be float32 .16, 3, 6, 6."),
    "a momentum in half precision": (lambda c: put(c, CONV, torch.Tensor.half), "float16 .* has to be float32"),
    "a momentum is not finite": (lambda c: put(c, CONV, lambda t: filled(t, math.nan)), f"{CONV}: .* not finite"),
    "a momentum is a list": (lambda c: put(c, NORM, torch.Tensor.tolist), f"{NORM}: .* is no tensor"),
    "a momentum is sparse": (lambda c: put(c, NORM, torch.Tensor.to_sparse), f"{NORM}: .* is no tensor"),
    "a state is missing": (lambda c: state(c).pop(CONV), f"optimizer: state: '{CONV}' is missing"),
    "a state is empty": (lambda c: state(c)[CONV].clear(), f"state of {CONV}: .* is missing"),
    "all states are missing": (lambda c: state(c).clear(), "optimizer: state: .* is missing"),
    "a state of nothing": (lambda c: state(c).update(spare={}), "'spare' does not belong"),
    "a state has more in it": (lambda c: state(c)[CONV].update(x=torch.ones(1)), "'x' does not belong to this opt"),
    "a weight is missing": (lambda c: c.model.pop(CONV), f"model: '{CONV}' is missing"),
    "a weight is cut": (lambda c: c.model.update({CONV: c.model[CONV][:3]}), f"model: {CONV} is float32 .3, 3, 6, 6."),
    "a weight is not finite": (
        lambda c: c.model.update({CONV: filled(c.model[CONV], math.inf)}), f"model: {CONV} is not finite"
    ),
    "no average": (lambda c: setattr(c, "ema", None), "ema: .* is missing"),
    "an average has more in it": (lambda c: c.ema.update(x=torch.ones(1)), "ema: 'x' does not belong"),
    "an average in half precision": (lambda c: c.ema.update({NORM: c.ema[NORM].half()}), "ema: .* float16"),
    "an average is not a number": (lambda c: c.ema.update({NORM: filled(c.ema[NORM], math.nan)}), "ema: .* not finite"),
    "updates below zero": (lambda c: setattr(c, "ema_updates", -1), "ema_updates is -1"),
    "a gradient is cut": (
        lambda c: c.train_state["gradients"].update({NORM: torch.ones(3)}), f"gradients: {NORM} is float32 .3."
    ),
    "a gradient of nothing": (lambda c: c.train_state["gradients"].update(x=torch.ones(3)), "gradients: x is no param"),
    "a scaler of text": (lambda c: setattr(c, "scaler", {"scale": "1"}), "scaler: 'growth_factor' is missing"),
    "a scale of zero": (
        lambda c: setattr(c, "scaler", {"scale": 0.0, "growth_factor": 2.0, "backoff_factor": 0.5,
                                        "growth_interval": 2000, "_growth_tracker": 0}), "scaler: scale is 0.0",
    ),
    "no random numbers": (lambda c: c.rng.clear(), "rng: 'torch' is missing"),
    "random numbers are cut": (lambda c: c.rng.update(torch=c.rng["torch"][:9]), "rng: torch is no state"),
    "random numbers are floats": (lambda c: c.rng.update(torch=c.rng["torch"].float()), "rng: torch is no state"),
    "random numbers of a GPU are none": (lambda c: c.rng.update(cuda=[]), "rng: cuda is no state"),
    "no last step": (lambda c: c.train_state.pop("last_step"), "train_state: 'last_step' is missing"),
    "an epoch that is text": (lambda c: c.train_state.update(epoch="1"), "train_state: 'epoch' is of a wrong kind"),
    "a position that is a list": (lambda c: c.train_state.update(position=[1]), "'position' is of a wrong kind"),
    "a position before the epoch": (lambda c: c.train_state["position"].update(batches=-1), "position is .*-1"),
    "patience without a best epoch": (lambda c: c.train_state["early_stop"].pop("best_epoch"), "'best_epoch' is miss"),
    "scores of other classes": (lambda c: c.train_state["class_map"].append(0.1), "class_map has 3 numbers"),
    "no momentum in the schedule": (lambda c: c.hyp.pop("warmup_momentum"), "hyp: 'warmup_momentum' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_what_does_not_fit_is_refused_by_the_name_of_its_part(run: tuple[str, Model, Checkpoint], what: str) -> None:
    optimizer, model, sound = run
    checkpoint = copy.deepcopy(sound)
    change, message = SPOILT[what]
    change(checkpoint)
    with pytest.raises(InputError, match=message) as refused:
        check_run_fits(checkpoint, model, Hyp(), optimizer)
    assert "\n" not in str(refused.value)


def test_a_whole_run_passes(run: tuple[str, Model, Checkpoint]) -> None:
    check_run_fits(run[2], run[1], Hyp(), run[0])


def test_the_state_of_another_optimizer_is_refused(run: tuple[str, Model, Checkpoint]) -> None:
    other = "Adam" if run[0] == "SGD" else "SGD"
    with pytest.raises(InputError, match=r"is missing"):
        check_run_fits(run[2], run[1], Hyp(), other)


def test_a_negative_mean_of_squares_is_refused() -> None:
    model, checkpoint = make("Adam")
    state(checkpoint)[CONV]["exp_avg_sq"].view(-1)[0] = -1
    with pytest.raises(InputError, match=rf"{CONV}: exp_avg_sq is negative"):
        check_run_fits(checkpoint, model, Hyp(), "Adam")


def test_groups_in_another_order_are_matched_by_name(run: tuple[str, Model, Checkpoint]) -> None:
    optimizer, model, sound = run
    checkpoint = copy.deepcopy(sound)
    assert checkpoint.optimizer is not None
    for number, name in enumerate(("no_decay", "decay", "bias")):
        group(checkpoint, name)["lr"] = 0.1 * (number + 1)
    checkpoint.optimizer["groups"].reverse()
    check_run_fits(checkpoint, model, Hyp(), optimizer)
    fresh = build_optimizer(model, optimizer, Hyp())
    load_optimizer_state(fresh, model, checkpoint.optimizer)
    assert [(g["name"], round(g["lr"], 3), g["weight_decay"]) for g in fresh.param_groups] == [
        ("no_decay", 0.1, 0.0), ("decay", 0.2, 0.0005), ("bias", 0.3, 0.0)
    ]  # fmt: skip


def test_a_file_of_an_earlier_version_is_read_by_the_order_of_its_groups(run: tuple[str, Model, Checkpoint]) -> None:
    optimizer, model, sound = run
    checkpoint = copy.deepcopy(sound)
    assert checkpoint.optimizer is not None
    del checkpoint.optimizer["without_state"]
    for each in checkpoint.optimizer["groups"]:
        del each["name"], each["param_names"]
    check_run_fits(checkpoint, model, Hyp(), optimizer)
    checkpoint.optimizer["groups"].reverse()
    checkpoint.optimizer["groups"][0]["weight_decay"] = 0.01
    with pytest.raises(InputError, match=r"group no_decay: weight_decay is 0.01"):
        check_run_fits(checkpoint, model, Hyp(), optimizer)


def test_hyper_parameters_of_a_later_version_may_be_absent(run: tuple[str, Model, Checkpoint]) -> None:
    optimizer, model, sound = run
    checkpoint = copy.deepcopy(sound)
    for key in ("kernel_lr", "attention_lr", "temperature_span", "kernel_spread", "routing_deviation"):
        del checkpoint.hyp[key]
    check_run_fits(checkpoint, model, Hyp(), optimizer)


def test_groups_with_rates_of_their_own_are_expected_where_the_hyper_parameters_have_them() -> None:
    torch.manual_seed(0)
    model, hyp = Model("yolov5n_dynamic.yaml", nc=2), Hyp(kernel_lr=4.0)
    _, sound = make("SGD")
    steps = build_optimizer(model, "SGD", hyp)
    with pytest.raises(InputError, match=r"have to be no_decay, decay, bias, decay x4, bias x4"):
        resume_checks._check_groups((sound.optimizer or {})["groups"], model, hyp, ("lr", "momentum"))
    resume_checks._check_groups(optimizer_state(steps, model)["groups"], model, hyp, ("lr", "momentum"))


def test_a_state_noted_as_absent_is_refused_where_steps_were_taken(run: tuple[str, Model, Checkpoint]) -> None:
    optimizer, model, sound = run
    checkpoint = copy.deepcopy(sound)
    assert checkpoint.optimizer is not None
    checkpoint.optimizer |= {"state": {}, "without_state": [name for name, _ in model.named_parameters()]}
    with pytest.raises(InputError, match=r"optimizer: state: .* is missing"):
        check_run_fits(checkpoint, model, Hyp(), optimizer)


@pytest.mark.parametrize("noted", [True, False])
def test_a_frozen_parameter_has_no_state_and_any_other_has(noted: bool) -> None:
    model, checkpoint = make("SGD", frozen=CONV)
    assert checkpoint.optimizer is not None and CONV not in state(checkpoint)
    if not noted:
        del checkpoint.optimizer["without_state"]  # as earlier versions wrote it
    check_run_fits(checkpoint, model, Hyp(), "SGD")
    del state(checkpoint)[NORM]
    with pytest.raises(InputError, match=rf"optimizer: state: '{NORM}' is missing"):
        check_run_fits(checkpoint, model, Hyp(), "SGD")
