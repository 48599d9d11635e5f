"""Several models used together: the boxes of all of them go into one NMS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from models.tta import AugmentedModel
from models.yolo import Model
from utils.core.errors import InputError
from utils.core.names import counted


class Ensemble(nn.ModuleList):
    """Models over the same classes; each may be an :class:`AugmentedModel`.

    Args:
        models: at least one; their strides may differ.
        sources: the file of each, for messages.

    Raises:
        InputError: no model, or models with different classes; the message names the files.
    """

    def __init__(self, models: Iterable[Model | AugmentedModel] | None = None, sources: Sequence[str] = ()) -> None:
        super().__init__(models)
        members = self.members
        if not members:
            raise InputError("an ensemble needs at least one model")
        titles = list(sources) or [f"model {number}" for number in range(len(members))]
        for title, other in zip(titles[1:], members[1:], strict=True):
            _require_same_classes(titles[0], members[0], title, other)

    @property
    def members(self) -> list[Model | AugmentedModel]:
        return [model for model in self if isinstance(model, (Model, AugmentedModel))]

    @property
    def names(self) -> list[str]:
        return self.members[0].names

    @property
    def nc(self) -> int:
        return self.members[0].nc

    @property
    def imgsz(self) -> tuple[int, int] | None:
        """The largest size that a member was trained at."""
        return max((model.imgsz for model in self.members if model.imgsz), default=None)

    @property
    def stride(self) -> Tensor:
        """The strides of the member with the largest one: images that fit it fit all."""
        return max((model.stride for model in self.members), key=lambda strides: float(strides.max()))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """[B, C, H, W] in 0..1 -> (boxes of all members [B, N1 + N2 + ..., nc + 5], None)."""
        return torch.cat([model(x)[0] for model in self], dim=1), None


Detector: TypeAlias = Model | AugmentedModel | Ensemble  # what Evaluator and Predictor can use


def _require_same_classes(
    first: str, model: Model | AugmentedModel, second: str, other: Model | AugmentedModel
) -> None:
    """Raise InputError: two models, from the files ``first`` and ``second``, have different classes."""
    if model.nc != other.nc:
        raise InputError(
            f"{second} has {counted(other.nc, 'class')}, {first} {model.nc}: models used together must have the same"
        )
    for index, (name, name_of_other) in enumerate(zip(model.names, other.names)):
        if name != name_of_other:
            raise InputError(
                f"class {index} is '{name_of_other}' in {second} and '{name}' in {first}: models used together must "
                "have the same classes in the same order"
            )
