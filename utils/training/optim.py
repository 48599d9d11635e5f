"""The optimizer and its parameter groups: which have weight decay, and at which learning rate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from models.dynamic_convolution import DynamicConvolution
from utils.config.flags import OPTIMIZERS
from utils.config.hyp import Hyp
from utils.core.errors import InputError, suggestion

LOG = logging.getLogger(__name__)

GROUPS = ("no_decay", "decay", "bias")
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def state_keys(optimizer: str) -> tuple[str, ...]:
    """Return the names of what an optimizer of ``OPTIMIZERS`` keeps of each parameter."""
    return ("momentum_buffer",) if optimizer == "SGD" else ("step", "exp_avg", "exp_avg_sq")


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


def _rate_factors(model: nn.Module, kernel_lr: float, attention_lr: float) -> dict[str, float]:
    """Return factors of the learning rate other than 1 by parameter name; only dynamic layers have them.

    ``kernel_lr`` is that of kernels [K, out, in/g, k, k] and their biases [K, out].
    """
    factors: dict[int, float] = {}
    for module in model.modules():
        if isinstance(module, DynamicConvolution):
            factors |= {id(p): kernel_lr for p in (module.weight, module.bias) if p is not None}
        if getattr(module, "no_weight_decay", False):  # an attention
            factors |= {id(parameter): attention_lr for parameter in module.parameters()}
    return {name: factors[id(p)] for name, p in model.named_parameters() if factors.get(id(p), 1.0) != 1}


@dataclass(frozen=True)
class RateGroup:
    """Parameters with the same weight decay and learning rate.

    Attributes:
        name: one of ``GROUPS``, followed by the factor (``decay x4``) unless that is 1.
        kind: one of ``GROUPS``.
        factor: of the learning rate.
        members: the parameters by name.
    """

    name: str
    kind: str
    factor: float
    members: dict[str, nn.Parameter]


def rate_groups(model: nn.Module, hyp: Hyp) -> list[RateGroup]:
    """Split :func:`parameter_groups` by learning rate: first all with factor 1, then one group per kind and factor.

    Args:
        model: whose parameters are split.
        hyp: ``attention_decay``, ``kernel_lr`` and ``attention_lr``.
    """
    split = parameter_groups(model, hyp.attention_decay)
    factors = _rate_factors(model, hyp.kernel_lr, hyp.attention_lr)
    groups = []
    for factor in (1.0, *sorted(set(factors.values()))):
        for kind, parameters in split.items():
            members = {key: parameter for key, parameter in parameters.items() if factors.get(key, 1.0) == factor}
            if factor == 1 or members:
                groups.append(RateGroup(kind if factor == 1 else f"{kind} x{factor:g}", kind, factor, members))
    return groups


def build_optimizer(model: nn.Module, name: str, hyp: Hyp, decay_factor: float = 1.0) -> torch.optim.Optimizer:
    """Make the optimizer over :func:`rate_groups`, whose groups carry ``name``, ``kind`` and ``param_names``.

    Parameters with another learning rate are in further groups (``decay x4``), with the factor as ``lr_factor``. Their
    weights decay as fast as at the common rate.

    Args:
        model: whose parameters are optimized.
        name: one of ``OPTIMIZERS``. SGD uses Nesterov's momentum.
        hyp: ``lr0``, ``momentum`` (of SGD; of the others the first beta), ``weight_decay`` (of the groups ``decay``)
            and those of :func:`rate_groups`.
        decay_factor: multiple of the weight decay.

    Raises:
        InputError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer {name}: expected one of {', '.join(OPTIMIZERS)}{suggestion(name, OPTIMIZERS)}")
    decay = hyp.weight_decay * decay_factor
    groups: list[dict[str, Any]] = [
        {
            "params": list(group.members.values()),
            "name": group.name,
            "kind": group.kind,
            "param_names": list(group.members),
            "weight_decay": decay / group.factor if group.kind == "decay" else 0.0,
            "lr_factor": group.factor,
        }
        for group in rate_groups(model, hyp)
    ]
    counts = ", ".join(f"{len(group['params'])} {group['name']}" for group in groups)
    LOG.info("optimizer %s: %s parameter tensors; weight decay %g", name, counts, decay)
    if name == "SGD":
        return torch.optim.SGD(groups, lr=hyp.lr0, momentum=hyp.momentum, nesterov=hyp.momentum > 0)
    kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
    return kind(groups, lr=hyp.lr0, betas=(hyp.momentum, 0.999))
