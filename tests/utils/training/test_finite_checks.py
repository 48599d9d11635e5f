"""Infinite values and not-a-number in tensors and layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from utils.core.errors import InputError
from utils.training.finite_checks import all_finite, check_weights_finite, first_nonfinite, first_nonfinite_layer


class Factor(nn.Module):
    """Multiplies its input by ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


def network(factor: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), Factor(factor), nn.Conv2d(2, 1, 1))


IMAGES = torch.ones(2, 1, 3, 3)


@pytest.mark.parametrize(
    ("tensors", "finite"),
    [
        ([], True),
        ([torch.tensor([1.0, 2.0]), torch.tensor([3])], True),
        ([torch.tensor([1.0, math.nan])], False),
        ([torch.zeros(0), torch.tensor([-math.inf])], False),
        ([torch.full((4,), 3e38)], True),  # whose squares are not
        ([torch.tensor([1.0]), torch.tensor([math.inf], dtype=torch.float16)], False),
    ],
)
def test_finite_means_every_single_element(tensors: list[Tensor], finite: bool) -> None:
    assert all_finite(tensors) is finite


def test_the_first_tensor_is_named() -> None:
    sound, broken = torch.zeros(2), torch.tensor([math.nan])
    assert first_nonfinite({"a": sound, "b": broken, "c": broken}) == "b"
    assert first_nonfinite({"a": sound}) is None


@pytest.mark.parametrize(("value", "layer"), [(1.0, None), (math.inf, "1 (Factor)"), (math.nan, "1 (Factor)")])
def test_the_first_layer_whose_output_is_not_finite_is_named(value: float, layer: str | None) -> None:
    model = network(value)
    assert first_nonfinite_layer(model, lambda: model(IMAGES)) == layer
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_whose_weights_are_not_finite_is_named_as_such() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.fill_(math.nan)
    found = first_nonfinite_layer(model, lambda: model(IMAGES))
    assert found == "2 (Conv2d), whose weights are not finite"


def test_a_model_that_is_not_finite_is_not_saved_nor_is_its_ema_model() -> None:
    finite, broken = network(), network()
    broken[0][1].running_var.fill_(math.inf)
    check_weights_finite(finite, finite)
    with pytest.raises(InputError, match=r"0\.1\.running_var of the EMA model .*unchanged"):
        check_weights_finite(finite, broken)
    with pytest.raises(InputError, match=r"0\.1\.running_var of the model"):
        check_weights_finite(broken, finite)
