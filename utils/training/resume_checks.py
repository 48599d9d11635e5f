"""Checks that a checkpoint is a whole run of the model in it, before anything of it is used."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from models.yolo import Model
from utils.checkpoint import Checkpoint
from utils.checkpoint.format import is_of
from utils.config.hyp import Hyp
from utils.core.errors import InputError
from utils.core.names import printable
from utils.training.distributed import without_gradient
from utils.training.optim import rate_groups, state_keys
from utils.training.optimizer_state import groups_by_name

# What train_state records, and which of it every run needs. Files of earlier versions lack the others.
TRAIN_STATE: dict[str, Any] = {
    **dict.fromkeys(("epoch", "last_step", "warmup", "images", "processes", "skipped"), int),
    **dict.fromkeys(("amp", "stopped_early", "best_written"), bool),
    **dict.fromkeys(("early_stop", "position"), dict[str, Any]),
    "class_map": list[float],
    "gradients": dict[str, Tensor],
}
_NEEDED = ("epoch", "last_step", "early_stop", "class_map", "gradients")
_POSITION: dict[str, Any] = {"batches": int, "skipped": int, "sums": list[float], "seconds": float}
_EARLY_STOP: dict[str, Any] = {"best_epoch": int, "best_fitness": float, "possible_stop": bool, "since": int}
# Hyper-parameters that a file of an earlier version need not have.
_LATER = {
    *("mosaic9", "cutout", "hist_equalize", "albumentations", "nominal_batch", "grad_clip"),
    *("temperature_span", "kernel_lr", "attention_lr", "kernel_spread", "routing_deviation"),
}
_HYP = [each.name for each in fields(Hyp) if each.name not in _LATER]
_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


def check_train_state(checkpoint: Checkpoint) -> None:
    """Raise InputError: a value of ``train_state`` is of a wrong kind."""
    state = checkpoint.train_state
    _check_kinds("train_state", state, TRAIN_STATE, ("epoch",))
    if "position" in state:
        position = state["position"]
        _check_kinds("train_state: position", position, _POSITION, _POSITION)
        if not 0 <= position["skipped"] <= position["batches"] or len(position["sums"]) != 3:
            raise InputError(f"train_state: position is {position}")
    if state["epoch"] < -1:
        raise InputError(f"train_state: epoch is {state['epoch']}")


def check_run_fits(checkpoint: Checkpoint, model: Model, hyp: Hyp, optimizer: str) -> None:
    """Check that everything a run resumes with fits the model that it is loaded into.

    Args:
        checkpoint: of the run.
        model: built from the checkpoint's yaml, with the layers of ``--freeze`` frozen.
        hyp: of the run.
        optimizer: one of ``OPTIMIZERS``.

    Raises:
        InputError: a part is missing, of another shape or kind, not finite, or does not belong there; it is named.
    """
    check_train_state(checkpoint)
    state, parameters, tensors_of_model = checkpoint.train_state, dict(model.named_parameters()), model.state_dict()
    _check_present("hyp", checkpoint.hyp, _HYP)
    _check_present("train_state", state, _NEEDED)
    _check_kinds("train_state: early_stop", state["early_stop"], _EARLY_STOP, tuple(_EARLY_STOP)[:3])
    if not math.isfinite(state["early_stop"]["best_fitness"]):
        raise InputError("train_state: early_stop: best_fitness is not finite")
    if len(state["class_map"]) != checkpoint.nc:
        raise InputError(f"train_state: class_map has {len(state['class_map'])} numbers for {checkpoint.nc} classes")
    for part, tensors in (("model", checkpoint.model), ("ema", checkpoint.ema or {})):
        _check_names(part, tensors, tensors_of_model, of="this model")
        for name, tensor in tensors.items():
            _check_tensor(f"{part}: {name}", tensor, tensors_of_model[name])
    if checkpoint.ema_updates < 0:
        raise InputError(f"ema_updates is {checkpoint.ema_updates}")
    saved = checkpoint.optimizer or {}
    kinds = {"state": dict[str, dict[str, Any]], "groups": list[dict[str, Any]], "without_state": list[str]}
    _check_kinds("optimizer", saved, kinds, ("state", "groups"))
    _check_groups(saved["groups"], model, hyp, ("lr", "momentum") if optimizer == "SGD" else ("lr",))
    # A scaler may have skipped every step so far; earlier versions did not record what has no state.
    stepped = state["last_step"] >= 0 and not ("without_state" in saved and checkpoint.scaler)
    _check_state(saved, model, state_keys(optimizer), stepped)
    for name, gradient in state["gradients"].items():
        if name not in parameters:
            raise InputError(f"train_state: gradients: {_shown(name)} is no parameter of this model")
        _check_tensor(f"train_state: gradients: {name}", gradient, parameters[name], finite=not checkpoint.scaler)
    _check_rest(checkpoint)


def _check_groups(groups: list[dict[str, Any]], model: Model, hyp: Hyp, needed: Sequence[str]) -> None:
    """Check that each group exists once, with its own parameters where recorded, and that one has weight decay."""
    by_name = groups_by_name(groups)
    expected = rate_groups(model, hyp)
    if len(groups) != len(expected) or by_name.keys() != {each.name for each in expected}:
        names = ", ".join(_shown(group.get("name")) for group in groups)
        needed_names = ", ".join(each.name for each in expected)
        raise InputError(f"optimizer: its groups are {names or 'none'}, and have to be {needed_names}")
    for each in expected:
        group, place = by_name[each.name], f"optimizer: group {each.name}"
        numbers = {"lr": float, "weight_decay": float, "momentum": float, "param_names": list[str]}
        _check_kinds(place, group, numbers, (*needed, "weight_decay"))
        for key in ("lr", "weight_decay", "momentum"):
            if not 0 <= group.get(key, 0.0) < math.inf:
                raise InputError(f"{place}: {key} is {group[key]}")
        if each.kind != "decay" and group["weight_decay"] != 0:
            raise InputError(f"{place}: weight_decay is {group['weight_decay']:g}, and only the group decay has one")
        _check_names(place, group.get("param_names", each.members), each.members, of="this group of the model")


def _check_state(saved: Mapping[str, Any], model: Model, keys: Collection[str], stepped: bool) -> None:
    """Check that every parameter has a state, except those without a gradient so far."""
    state, parameters = saved["state"], dict(model.named_parameters())
    recorded = "without_state" in saved
    without = set(saved["without_state"]) if recorded else set(parameters) - set(state)
    if stepped and without:
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        without &= frozen if without <= frozen else frozen | set(without_gradient(model))
    elif state and not recorded:
        without = set()
    expected = [name for name in parameters if name not in without]
    _check_names("optimizer: state", state, expected, of="the parameters that have one")
    for name, values in state.items():
        place = f"optimizer: state of {name}"
        _check_names(place, values, keys, of="this optimizer")
        for key, value in values.items():
            like = torch.zeros(()) if key == "step" else parameters[name]
            _check_tensor(f"{place}: {key}", value, like)
            if key in ("step", "exp_avg_sq") and (value < 0).any():
                raise InputError(f"{place}: {key} is negative")


def _check_rest(checkpoint: Checkpoint) -> None:
    """Check the scale of the loss and the states of the random generators."""
    if checkpoint.scaler:
        _check_kinds("scaler", checkpoint.scaler, dict.fromkeys(_SCALER, float), _SCALER)
        if wrong := [key for key in _SCALER[:-1] if not 0 < checkpoint.scaler[key] < math.inf]:
            raise InputError(f"scaler: {wrong[0]} is {checkpoint.scaler[wrong[0]]}")
    _check_kinds("rng", checkpoint.rng, {"torch": Tensor, "cuda": list[Tensor]}, ("torch",))
    try:
        torch.Generator().set_state(checkpoint.rng["torch"])
    except (RuntimeError, TypeError) as error:
        raise InputError("rng: torch is no state of torch's random numbers") from error
    cuda = checkpoint.rng.get("cuda")
    if cuda is not None and not (cuda and cuda[0].dtype == torch.uint8 and cuda[0].shape == (16,)):
        raise InputError("rng: cuda is no state of a GPU's random numbers")


def _check_kinds(place: str, values: Mapping[str, Any], kinds: Mapping[str, Any], needed: Collection[str]) -> None:
    _check_present(place, values, needed)
    if wrong := [key for key, kind in kinds.items() if key in values and not is_of(values[key], kind)]:
        raise InputError(f"{place}: '{wrong[0]}' is of a wrong kind ({type(values[wrong[0]]).__name__})")


def _check_present(place: str, values: Mapping[str, Any], needed: Collection[str]) -> None:
    if missing := [key for key in needed if key not in values]:
        raise InputError(f"{place}: '{missing[0]}' is missing")


def _check_names(place: str, names: Collection[str], expected: Collection[str], of: str) -> None:
    _check_present(place, dict.fromkeys(names), expected)
    if extra := [name for name in names if name not in set(expected)]:
        raise InputError(f"{place}: '{_shown(extra[0])}' does not belong to {of}")
    if len(names) != len(expected):
        raise InputError(f"{place}: a name occurs twice")


def _check_tensor(place: str, value: Any, like: Tensor, finite: bool = True) -> None:
    """Check that a tensor has the shape and type of another, and finite values."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise InputError(f"{place} is no tensor")
    if (value.shape, value.dtype) != (like.shape, like.dtype):
        raise InputError(f"{place} is {_kind(value)}, and has to be {_kind(like)}")
    if finite and not value.isfinite().all():
        raise InputError(f"{place} is not finite")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _shown(name: object) -> str:
    """Shorten a name of the file for a message."""
    return printable(str(name)[:80])
