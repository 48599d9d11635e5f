"""Taking over the tensors of another model that fit this one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransferReport:
    """Names of the model's tensors by what happened to them; ``unused`` names the source's."""

    taken: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)

    def log(self, source: str) -> None:
        total = len(self.taken) + len(self.other_shape) + len(self.absent) + len(self.excluded)
        LOG.info("took %d of %d tensors from %s", len(self.taken), total, source)
        for what, names in (("other shape", self.other_shape), ("not in the file", self.absent)):
            if names:
                LOG.info("  %s, kept as initialised: %d (%s)", what, len(names), _short(names))
        if self.unused:
            LOG.info("  in the file, of no use here: %d (%s)", len(self.unused), _short(self.unused))


def _short(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


@torch.no_grad()
def transfer(model: nn.Module, source: Mapping[str, Tensor], exclude: Sequence[str] = ()) -> TransferReport:
    """Copy every tensor of ``source`` whose name and shape match into ``model``.

    Args:
        exclude: last parts of names to leave alone, e.g. ``("anchors",)`` when the user's model yaml sets them.
            The temperature of dynamic layers is never taken: a new run anneals from its own start.
    """
    report = TransferReport()
    own = model.state_dict()
    skipped = {*exclude, "temperature"}
    for name, tensor in own.items():
        given = source.get(name)
        if name.rpartition(".")[2] in skipped:
            report.excluded.append(name)
        elif given is None:
            report.absent.append(name)
        elif given.shape != tensor.shape:
            report.other_shape.append(name)
        else:
            tensor.copy_(given)
            report.taken.append(name)
    report.unused.extend(name for name in source if name not in own)
    return report
