"""The optimizer, and which parameters get weight decay."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from models.common import Dynamic_conv2d
from utils.core.errors import InputError, suggestion

LOG = logging.getLogger(__name__)

GROUPS = ("no_decay", "decay", "bias")
# What each optimizer keeps per parameter.
STATE = {
    "SGD": ("momentum_buffer",), "Adam": ("step", "exp_avg", "exp_avg_sq"), "AdamW": ("step", "exp_avg", "exp_avg_sq")
}  # fmt: skip
OPTIMIZERS = tuple(STATE)
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


def own_rates(model: nn.Module, kernel_lr: float, attention_lr: float) -> dict[str, float]:
    """Factor of the learning rate by parameter name, for the parameters of dynamic layers that have one of their own.

    ``kernel_lr`` is for what is mixed: kernels [K, out, in/g, k, k] and their biases [K, out].
    """
    factors: dict[int, float] = {}
    for module in model.modules():
        if isinstance(module, Dynamic_conv2d):
            factors |= {id(p): kernel_lr for p in (module.weight, module.bias) if p is not None}
        if getattr(module, "no_weight_decay", False):  # an attention
            factors |= {id(parameter): attention_lr for parameter in module.parameters()}
    return {name: factors[id(p)] for name, p in model.named_parameters() if factors.get(id(p), 1.0) != 1}


@dataclass(frozen=True)
class RateGroup:
    """Parameters that the optimizer treats alike.

    Attributes:
        name: one of ``GROUPS``, with the factor behind it (``decay x4``) unless that is 1.
        kind: one of ``GROUPS``.
        factor: of the learning rate.
        members: the parameters by name.
    """

    name: str
    kind: str
    factor: float
    members: dict[str, nn.Parameter]


def rate_groups(
    model: nn.Module, attention_decay: bool = False, kernel_lr: float = 1.0, attention_lr: float = 1.0
) -> list[RateGroup]:
    """:func:`parameter_groups`, and behind them one more group for each kind and rate of :func:`own_rates`."""
    split = parameter_groups(model, attention_decay)
    own = own_rates(model, kernel_lr, attention_lr)
    groups = []
    for factor in (1.0, *sorted(set(own.values()))):
        for kind, everything in split.items():
            members = {key: parameter for key, parameter in everything.items() if own.get(key, 1.0) == factor}
            if factor == 1 or members:
                groups.append(RateGroup(kind if factor == 1 else f"{kind} x{factor:g}", kind, factor, members))
    return groups


def build_optimizer(
    model: nn.Module,
    name: str = "SGD",
    lr: float = 0.01,
    momentum: float = 0.937,
    weight_decay: float = 0.0005,
    attention_decay: bool = False,
    kernel_lr: float = 1.0,
    attention_lr: float = 1.0,
) -> torch.optim.Optimizer:
    """Optimizer over :func:`rate_groups`, whose groups carry ``name``, ``kind`` and ``param_names``.

    Parameters with a rate of their own are in further groups (``decay x4``), with the factor as ``lr_factor``. Their
    weights decay as fast as at the common rate.

    Args:
        name: one of ``OPTIMIZERS``. SGD uses Nesterov's momentum.
        momentum: momentum of SGD, first beta of the others.
        weight_decay: of the group ``decay``; the others have none.
        kernel_lr, attention_lr: rates of kernels and attention of dynamic layers as multiples of all others'.

    Raises:
        InputError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer {name}: expected one of {', '.join(OPTIMIZERS)}{suggestion(name, OPTIMIZERS)}")
    groups: list[dict[str, Any]] = [
        {
            "params": list(group.members.values()),
            "name": group.name,
            "kind": group.kind,
            "param_names": list(group.members),
            "weight_decay": weight_decay / group.factor if group.kind == "decay" else 0.0,
            "lr_factor": group.factor,
        }
        for group in rate_groups(model, attention_decay, kernel_lr, attention_lr)
    ]
    counts = ", ".join(f"{len(group['params'])} {group['name']}" for group in groups)
    LOG.info("optimizer %s: %s parameter tensors; weight decay %g", name, counts, weight_decay)
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=(momentum, 0.999))
