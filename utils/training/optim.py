"""The optimizer, and which parameters get weight decay."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from utils.errors import InputError, nearest

LOG = logging.getLogger(__name__)

GROUPS = ("no_decay", "decay", "bias")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(model: nn.Module, attention_decay: bool = False) -> dict[str, dict[str, nn.Parameter]]:
    """Split all parameters of a model, frozen ones included, into ``GROUPS``; each is in exactly one, once.

    - ``bias``: whatever is called bias, also [K, out] biases of dynamic convolution;
    - ``decay``: weights of convolutions and linear layers, attention projections included;
    - ``no_decay``: weights of normalisations, scales and other parameters, and every parameter below a module that has
      ``no_weight_decay = True`` unless ``attention_decay``.
    """
    exempt: set[int] = set()
    for module in model.modules():
        if isinstance(module, _NORMS):
            exempt.update(id(parameter) for parameter in module.parameters(recurse=False))
        if getattr(module, "no_weight_decay", False) and not attention_decay:
            exempt.update(id(parameter) for parameter in module.parameters())

    groups: dict[str, dict[str, nn.Parameter]] = {name: {} for name in GROUPS}
    for name, parameter in model.named_parameters():  # names a shared parameter once
        if name.endswith("bias"):
            group = "bias"
        elif name.endswith("weight") and parameter.ndim > 1 and id(parameter) not in exempt:
            group = "decay"
        else:
            group = "no_decay"
        groups[group][name] = parameter
    return groups


def build_optimizer(
    model: nn.Module,
    name: str = "SGD",
    lr: float = 0.01,
    momentum: float = 0.937,
    weight_decay: float = 0.0005,
    attention_decay: bool = False,
) -> torch.optim.Optimizer:
    """Optimizer over :func:`parameter_groups`, whose groups carry ``name`` and ``param_names``.

    Args:
        name: one of ``OPTIMIZERS``. SGD uses Nesterov's momentum.
        momentum: momentum of SGD, first beta of the others.
        weight_decay: of the group ``decay``; the others have none.

    Raises:
        InputError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer {name}: expected one of {', '.join(OPTIMIZERS)}{nearest(name, OPTIMIZERS)}")
    split = parameter_groups(model, attention_decay)
    groups: list[dict[str, Any]] = [
        {
            "params": list(members.values()),
            "name": group,
            "param_names": list(members),
            "weight_decay": weight_decay if group == "decay" else 0.0,
        }
        for group, members in split.items()
    ]
    counts = ", ".join(f"{len(members)} {group}" for group, members in split.items())
    LOG.info("optimizer %s: %s parameter tensors; weight decay %g", name, counts, weight_decay)
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=(momentum, 0.999))
