"""What a run needs to go on exactly where it stopped: taking it down and putting it back."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.user_modules import require_modules
from utils.checkpoint import Checkpoint, load_checkpoint
from utils.checkpoint.find import newest_checkpoint
from utils.config.options import TrainOptions
from utils.config.paths import ROOT
from utils.errors import InputError

LOG = logging.getLogger(__name__)


def resume_options(options: TrainOptions) -> tuple[TrainOptions, Checkpoint | None]:
    """The options of the interrupted run ``--resume`` names, and its checkpoint; unchanged without ``--resume``.

    Raises:
        FileNotFoundError: no such file, or no run to go on with.
        InputError: the file's run is finished, so there is nothing left to do, or its model has layers from files
            that ``--modules`` did not name again: a checkpoint may not have code run.
    """
    if not options.resume:
        return options, None
    named = isinstance(options.resume, str)
    path = Path(str(options.resume)) if named else newest_checkpoint(ROOT / "runs/train", "last.pt")
    checkpoint = load_checkpoint(path)
    if not checkpoint.resumable:
        raise InputError(f"--resume {path}: this run is finished; to train on, start a new one with --weights {path}")
    require_modules(checkpoint.model_yaml, f"--resume {path}", checkpoint.options.get("modules", ()))
    fields = {field.name for field in dataclasses.fields(TrainOptions)}
    saved: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in checkpoint.options.items() if k in fields
    }
    folder = path.resolve().parents[1]
    saved |= {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "resume": str(path)}
    saved["modules"] = options.modules
    LOG.info("resuming %s after epoch %d of %d", path, checkpoint.train_state["epoch"] + 1, saved["epochs"])
    return TrainOptions(**saved), checkpoint


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """The optimizer's per-parameter state under the parameters' names, and its groups' settings.

    Names, not positions: a later change in the order of the groups cannot mix up momenta.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    state = {names[id(p)]: values for p, values in optimizer.state.items()}
    parts = ("params", "param_names")
    groups = [{k: v for k, v in group.items() if k not in parts} for group in optimizer.param_groups]
    return {"state": state, "groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Any]) -> None:
    """Put back what :func:`optimizer_state` took."""
    for name, parameter in model.named_parameters():
        if name in saved["state"]:
            optimizer.state[parameter] = {
                key: value.to(parameter.device) if isinstance(value, Tensor) and key != "step" else value
                for key, value in saved["state"][name].items()
            }
    for group, settings in zip(optimizer.param_groups, saved["groups"]):
        group.update({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def pending_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradients gathered for an optimizer step that is still to come."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def load_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Put back what :func:`pending_gradients` took."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)


def random_states() -> dict[str, Any]:
    """State of torch's generators (pictures and order are drawn from seed, epoch and index, so they need none)."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def load_random_states(states: Mapping[str, Any]) -> None:
    """Put back what :func:`random_states` took."""
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
