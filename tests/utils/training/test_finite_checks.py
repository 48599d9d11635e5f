"""Numbers that are no numbers any more."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from utils.core.dist import Ranks
from utils.core.errors import InputError
from utils.training.finite_checks import ELSEWHERE, NumberWatch, all_finite, first_unsound, first_unsound_layer


class Poison(nn.Module):
    """Turns what goes through into ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


def network(poison: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), Poison(poison), nn.Conv2d(2, 1, 1))


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


def test_the_first_unsound_tensor_is_named() -> None:
    sound, broken = torch.zeros(2), torch.tensor([math.nan])
    assert first_unsound({"a": sound, "b": broken, "c": broken}) == "b"
    assert first_unsound({"a": sound}) is None


@pytest.mark.parametrize(("value", "layer"), [(1.0, None), (math.inf, "1 (Poison)"), (math.nan, "1 (Poison)")])
def test_the_first_unsound_layer_is_named(value: float, layer: str | None) -> None:
    model = network(value)
    assert first_unsound_layer(model, lambda: model(IMAGES)) == layer
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_with_unsound_weights_is_named_as_such() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.fill_(math.nan)
    found = first_unsound_layer(model, lambda: model(IMAGES))
    assert found == "2 (Conv2d), whose weights are not finite"


def test_a_loss_is_told_with_the_layer_it_comes_from() -> None:
    model = network(math.nan)
    watch = NumberWatch(model)
    fault = watch.of_loss(torch.tensor(math.nan), lambda: model(IMAGES))
    assert fault == "the loss became nan: the first layer with such an output is 1 (Poison)"
    assert watch.of_loss(torch.tensor(1.0), lambda: model(IMAGES)) == ""


def test_a_loss_that_breaks_by_itself_is_told_so() -> None:
    model = network()
    fault = NumberWatch(model).of_loss(torch.tensor(math.inf), lambda: model(IMAGES))
    assert fault == "the loss became inf: the outputs of all layers are finite"


def test_all_processes_look_for_the_layer_that_broke_one_of_them() -> None:
    """Joint batch norms run on all of them or on none: one that did not would leave the others waiting."""
    model = network()
    runs: list[Tensor] = []
    for ranks in (Ranks(0, 2), Ranks(1, 2)):
        fault = NumberWatch(model, ranks=ranks).of_loss(
            torch.tensor(1.0), lambda: runs.append(model(IMAGES)), joint=torch.tensor(math.nan)
        )
        assert fault == ELSEWHERE
    assert len(runs) == 2


def test_the_gradient_is_followed_back_to_where_it_broke() -> None:
    model = network()
    model(IMAGES).sum().backward()
    watch = NumberWatch(model)
    assert watch.of_gradient() == ""
    for name in ("0.0.weight", "0.1.weight"):  # the layers before the one that broke get it from there
        model.get_parameter(name).grad.fill_(math.nan)  # type: ignore[union-attr]
    assert "on the way back, 0.1.weight is the first" in watch.of_gradient()
    assert NumberWatch(model, scaled=True).of_gradient() == ""


def test_a_batch_left_out_leaves_no_statistics_behind(caplog: pytest.LogCaptureFixture) -> None:
    model = network().train()
    watch = NumberWatch(model, allowed=1)
    watch.before_batch()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(IMAGES * math.nan)
    assert not model[0][1].running_mean.isfinite().any()
    watch.leave_out("broken", "epoch 1", "cure")
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert "epoch 1: broken; left out, 1 of --skip-nonfinite 1" in caplog.text


def test_one_batch_more_than_allowed_stops() -> None:
    watch = NumberWatch(network(), allowed=2)
    watch.skipped = 2
    with pytest.raises(InputError, match=r"^epoch 9: broken \(batches left out before: 2\); cure$"):
        watch.leave_out("broken", "epoch 9", "cure")


def test_an_unsound_model_or_average_is_not_saved() -> None:
    sound, broken = network(), network()
    broken[0][1].running_var.fill_(math.inf)
    NumberWatch(sound).check_state(sound)
    with pytest.raises(InputError, match=r"0\.1\.running_var of the average .*untouched"):
        NumberWatch(sound).check_state(broken)
    with pytest.raises(InputError, match=r"0\.1\.running_var of the model"):
        NumberWatch(broken).check_state(sound)


def test_a_scale_that_has_come_down_to_nothing_stops() -> None:
    class Scaler:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        def get_scale(self) -> float:
            return self.scale

    watch = NumberWatch(network(), scaled=True)
    watch.check_scale(Scaler(1.0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--no-amp"):
        watch.check_scale(Scaler(2.0**-11))  # type: ignore[arg-type]
