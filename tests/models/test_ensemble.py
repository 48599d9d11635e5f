"""Ensembles: all boxes of all members, and what cannot be put together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.ensemble import Ensemble
from models.fuse import fuse
from models.tta import AugmentedModel
from models.yolo import Model
from utils.core.errors import InputError


def build(seed: int, nc: int = 2, names: tuple[str, ...] = ("cat", "dog")) -> Model:
    torch.manual_seed(seed)
    model = Model("yolov5n.yaml", nc=nc).eval()
    model.names = list(names)
    return model


def test_the_boxes_of_the_members_follow_one_another() -> None:
    first, second, x = build(0), build(1), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        decoded, maps = Ensemble([first, second])(x)
        alone = [model(x)[0] for model in (first, second)]
    assert maps is None
    assert torch.equal(decoded, torch.cat(alone, dim=1))
    assert not torch.equal(*alone)


def test_members_may_be_augmented() -> None:
    first, second, x = AugmentedModel(build(0)).eval(), build(1), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        decoded, _ = Ensemble([first, second])(x)
        assert torch.equal(decoded, torch.cat([first(x)[0], second(x)[0]], dim=1))


def test_names_and_classes_are_those_of_the_members_and_the_coarsest_strides_count() -> None:
    first, second = build(0), build(1)
    second.stride = torch.tensor([8.0, 16.0, 32.0, 64.0])
    ensemble = Ensemble([first, second])
    assert (ensemble.nc, ensemble.names) == (2, ["cat", "dog"])
    assert ensemble.stride.max() == 64


def test_another_number_of_classes_is_refused_with_the_files() -> None:
    three = build(1, 3, ("cat", "dog", "cow"))
    with pytest.raises(InputError, match=r"b\.pt has 3 classes, a\.pt 2"):
        Ensemble([build(0), three], ["a.pt", "b.pt"])


def test_another_name_of_a_class_is_refused_with_the_files() -> None:
    with pytest.raises(InputError, match=r"class 1 is 'cow' in c\.pt and 'dog' in a\.pt"):
        Ensemble([build(0), build(1), build(2, names=("cat", "cow"))], ["a.pt", "b.pt", "c.pt"])


def test_no_model_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        Ensemble([])


def test_folding_the_norms_reaches_every_member_and_changes_no_box() -> None:
    ensemble, x = Ensemble([build(0), AugmentedModel(build(1))]).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, _ = ensemble(x)
        after, _ = fuse(ensemble)(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ensemble.modules())
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-3)
