"""Transfer of weights: copying those tensors of another model that fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.inflate import InflatedLayer, inflate

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransferReport:
    """Names of the model's tensors by the result of the transfer; ``unused`` are tensors of the source.

    ``inflated`` are dynamic layers made from static convolutions.
    """

    taken: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    inflated: list[InflatedLayer] = field(default_factory=list)

    def log(self, source: str) -> None:
        filled = sum(len(one.tensors) for one in self.inflated)
        total = len(self.taken) + len(self.other_shape) + len(self.absent) + len(self.excluded) + filled
        LOG.info("took %d of %d tensors from %s", len(self.taken), total, source)
        if self.inflated:
            layers = _short([one.layer for one in self.inflated])
            text = "  static convolutions inflated to dynamic layers, which start as them: %d (%s)"
            LOG.info(text, len(self.inflated), layers)
        partly = [one.layer for one in self.inflated if one.lost_activation]
        if partly:
            text = "  of these without the activation that followed there, so they start close, not equal: %s;"
            LOG.info(f"{text} DynamicConv has one", _short(partly))
        for what, names in (("other shape", self.other_shape), ("not in the file", self.absent)):
            if names:
                LOG.info("  %s, kept as initialised: %d (%s)", what, len(names), _short(names))
        if self.unused:
            LOG.info("  in the file, of no use here: %d (%s)", len(self.unused), _short(self.unused))


def _short(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def intersect_dicts(da: Mapping[str, Any], db: Mapping[str, Any], exclude: Sequence[str] = ()) -> dict[str, Any]:
    """Return the tensors of ``da`` with a name and shape in ``db``, without names with a text of ``exclude``."""
    shared = [name for name, tensor in da.items() if name in db and tensor.shape == db[name].shape]
    return {name: da[name] for name in shared if not any(text in name for text in exclude)}


@torch.no_grad()
def transfer(
    model: nn.Module, source: Mapping[str, Tensor], exclude: Sequence[str] = (), spread: float = 0.0
) -> TransferReport:
    """Copy every tensor of ``source`` whose name and shape match into ``model``; inflate static convolutions.

    Args:
        exclude: last parts of names to skip, e.g. ``("anchors",)`` when the model yaml sets them. The temperature
            of dynamic layers is never copied: a new run starts with its own.
        spread: of the kernels of inflated layers, see :func:`models.inflate.inflate`.
    """
    report = TransferReport(inflated=list(inflate(model, source, spread=spread)))
    filled = {name for one in report.inflated for name in one.tensors}
    own = model.state_dict()
    skipped = {*exclude, "temperature"}
    for name, tensor in own.items():
        given = source.get(name)
        if name in filled:
            continue
        if name.rpartition(".")[2] in skipped:
            report.excluded.append(name)
        elif given is None:
            report.absent.append(name)
        elif given.shape != tensor.shape:
            report.other_shape.append(name)
        else:
            tensor.copy_(given)
            report.taken.append(name)
    used = {name for one in report.inflated for name in one.used}
    report.unused.extend(name for name in source if name not in own and name not in used)
    return report
