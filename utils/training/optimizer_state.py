"""What of a run's optimizer, gradients and random numbers goes into a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from utils.training.optim import GROUPS


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """The optimizer's per-parameter state under the parameters' names, and its groups' settings.

    Names, not positions: a later change in the order of the groups cannot mix up momenta. Parameters that have no state
    yet (frozen, or before the first step) are listed, so that a missing state can be told from none.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    state = {names[id(p)]: values for p, values in optimizer.state.items() if values}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    without = [name for name in names.values() if name not in state]
    return {"state": state, "groups": groups, "without_state": without}


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Any]) -> None:
    """Put back what :func:`optimizer_state` took and :func:`~utils.training.resume_checks.check_fits` has let pass.

    What decides about a group is its name. Only what a run changes is taken from the file, so not the weight decay.
    """
    for name, parameter in model.named_parameters():
        if name in saved["state"]:
            optimizer.state[parameter] = {
                key: _laid_out_like(parameter, value) if isinstance(value, Tensor) and key != "step" else value
                for key, value in saved["state"][name].items()
            }
    by_name = groups_by_name(saved["groups"])
    for group in optimizer.param_groups:
        found = by_name[group["name"]]
        group.update({key: found[key] for key in ("lr", "momentum") if key in group})


def groups_by_name(groups: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The groups of a checkpoint under their names; old files give none, there the order is that of ``GROUPS``."""
    unnamed = len(groups) == len(GROUPS) and not any("name" in group for group in groups)
    return {(GROUPS[i] if unnamed else str(group.get("name"))): group for i, group in enumerate(groups)}


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A tensor of a checkpoint, on the device and in the memory layout of the parameter that it belongs to."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def pending_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradients gathered for an optimizer step that is still to come."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def load_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Put back what :func:`pending_gradients` took."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = _laid_out_like(parameter, gradients[name])


def random_states(device: torch.device) -> dict[str, Any]:
    """State of torch's generators (images and order are drawn from seed, epoch and index, so they need none)."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = [torch.cuda.get_rng_state(device)]  # to ask the other GPUs would take memory on them
    return states


def load_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Put back what :func:`random_states` took, on every process of the run."""
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"][0], device)
