"""``--compile`` takes only what computes the same."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.yolo import Model
from utils.training.compiled import CompiledNetwork, compile_network

SMALL = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [33, 23, 30, 61]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Dynamic_conv2d", [8, 1, 1]]],
    "head": [[-1, 1, "Conv", [8, 3, 2]], [[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(SMALL).train()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 64)


def compiler(monkeypatch: pytest.MonkeyPatch, make: Callable[[Model], Any]) -> None:
    """Have torch.compile return what ``make`` makes of the model."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: make(model))


def test_the_same_numbers_are_taken_and_the_model_is_left_as_it_was(model: Model, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    waiting = torch.ones_like(model.head.m[0].weight)
    model.head.m[0].weight.grad = waiting
    random = torch.get_rng_state()
    network = compile_network(model, images, amp=False, backend="eager")
    assert isinstance(network, CompiledNetwork)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.head.m[0].weight.grad is waiting
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert torch.equal(torch.get_rng_state(), random)
    expected, found = model(images), network(images)
    for a, b in zip(expected, found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_only_batches_of_the_checked_shape_are_compiled(model: Model, images: Tensor) -> None:
    seen: list[int] = []

    def compiled(x: Tensor) -> list[Tensor]:
        seen.append(len(x))
        return model(x)  # type: ignore[no-any-return]

    network = CompiledNetwork(model, compiled, images.shape)
    network(images)
    network(images[:1])
    assert seen == [2]


@pytest.mark.parametrize(("times", "taken"), [(2, True), (20, False)])
def test_a_model_that_magnifies_rounding_may_differ_by_a_multiple_of_it(
    model: Model, images: Tensor, monkeypatch: pytest.MonkeyPatch, times: int, taken: bool
) -> None:
    with torch.no_grad():  # two large terms that cancel
        model.model[3].conv.weight[1] = model.model[3].conv.weight[0]
        model.head.m[1].weight[:, :2] += torch.tensor([1e5, -1e5]).view(1, 2, 1, 1)
    model.model[:4].requires_grad_(False)  # whose gradients are nothing but rounding now

    def make(model: Model) -> Any:
        def run(x: Tensor) -> list[Tensor]:
            exact = copy.deepcopy(model).double()(x.double())
            return [found + times * (other.float() - found).detach() for found, other in zip(model(x), exact)]

        return run

    compiler(monkeypatch, make)
    assert isinstance(compile_network(model, images, amp=False), CompiledNetwork) is taken


def wrong_map(model: Model) -> Any:
    return lambda x: [level + 0.02 * level.abs().max() for level in model(x)]


def no_number(model: Model) -> Any:
    return lambda x: [level * float("nan") for level in model(x)]


def wrong_gradient(model: Model) -> Any:
    def run(x: Tensor) -> list[Tensor]:
        maps = model(x)
        return [level.detach() + 1.1 * (level - level.detach()) for level in maps]

    return run


def lost_gradient(model: Model) -> Any:
    def run(x: Tensor) -> list[Tensor]:
        first, *others = model(x)
        return [first.detach(), *others]

    return run


def wrong_statistics(model: Model) -> Any:
    def run(x: Tensor) -> Any:
        maps = model(x)
        with torch.no_grad():
            model.model[0].bn.running_mean.data.add_(0.1)
        return maps

    return run


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (wrong_map, "of its largest value"),
        (no_number, "prediction 0"),
        (wrong_gradient, "the gradient of"),
        (lost_gradient, "the list of tensors"),
        (wrong_statistics, "running_mean"),
    ],
)
def test_other_numbers_are_refused_with_the_place(
    model: Model,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Any,
    place: str,
) -> None:
    compiler(monkeypatch, make)
    assert compile_network(model, images, amp=False) is model
    assert "computes something else" in caplog.text
    assert place in caplog.text


def test_a_compiler_that_fails_is_gone_on_without(
    model: Model, images: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(_: Model) -> Any:
        raise RuntimeError("no C++ compiler found\nand a long story")

    compiler(monkeypatch, no_compiler)
    with caplog.at_level(logging.WARNING):
        assert compile_network(model, images, amp=False) is model
    assert caplog.messages == ["--compile: torch.compile failed (no C++ compiler found); training without it"]
    assert all(p.grad is None for p in model.parameters())
