"""Saving and restoring the state of optimizer, gradients and random generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from utils.training.optim import GROUPS


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return the state of each parameter by its name, and the settings of the groups.

    With names instead of positions, a later change in the order of the groups cannot exchange momenta. Parameters
    without state (frozen, or before the first step) are listed, to distinguish them from those whose state is missing.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    state = {names[id(p)]: values for p, values in optimizer.state.items() if values}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    without = [name for name in names.values() if name not in state]
    return {"state": state, "groups": groups, "without_state": without}


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Any]) -> None:
    """Restore what :func:`optimizer_state` returned, checked by ``utils.training.resume_checks``.

    Groups are matched by name. Only what a run changes is taken from the file, so not the weight decay.
    """
    for name, parameter in model.named_parameters():
        if name in saved["state"]:
            optimizer.state[parameter] = {
                key: _laid_out_like(parameter, value) if isinstance(value, Tensor) and key != "step" else value
                for key, value in saved["state"][name].items()
            }
    by_name = groups_by_name(saved["groups"])
    for group in optimizer.param_groups:
        recorded = by_name[group["name"]]
        group.update({key: recorded[key] for key in ("lr", "momentum") if key in group})


def groups_by_name(groups: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the groups of a checkpoint by name; in old files without names the order is that of ``GROUPS``."""
    unnamed = len(groups) == len(GROUPS) and not any("name" in group for group in groups)
    return {(GROUPS[i] if unnamed else str(group.get("name"))): group for i, group in enumerate(groups)}


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Copy a tensor of a checkpoint to the device and the memory layout of its parameter."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def pending_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients accumulated for the next optimizer step, by parameter name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def load_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Restore what :func:`pending_gradients` returned."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = _laid_out_like(parameter, gradients[name])


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of torch's generators; images and their order depend on seed, epoch and index only."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = [torch.cuda.get_rng_state(device)]  # reading those of other GPUs would take memory there
    return states


def load_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Restore what :func:`random_states` returned, on every rank."""
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"][0], device)
