"""Statistics of young norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.training.norms import NormWarmUp


def model() -> nn.Sequential:
    first, second = nn.BatchNorm2d(2, momentum=0.03), nn.BatchNorm2d(2, momentum=0.03)
    return nn.Sequential(first, second).train()


def batches(count: int, shift: float = 5.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 2, 3, 3, generator=generator) * 0.1 + shift for _ in range(count)]


def run(net: nn.Sequential, warm_up: NormWarmUp, data: list[torch.Tensor]) -> list[float]:
    seen = []
    for x in data:
        warm_up.step()
        seen.append(net[0].momentum)
        net(x)
    return seen


def test_the_start_values_are_gone_after_a_few_batches() -> None:
    net, plain = model(), model()
    run(net, NormWarmUp(net), batches(20))
    run(plain, NormWarmUp(plain, enabled=False), batches(20))
    assert net[0].running_mean.tolist() == pytest.approx([5, 5], abs=0.1)
    assert net[0].running_var.tolist() == pytest.approx([0.01, 0.01], rel=0.3)
    assert plain[0].running_mean.max() < 3 and plain[0].running_var.min() > 0.5  # what it is for


def test_the_momentum_falls_to_its_own_and_stays() -> None:
    net = model()
    seen = run(net, NormWarmUp(net), batches(140))
    assert seen[:3] == [1, 4 / 5, 4 / 6] and seen[129] > 0.03
    assert seen[130:] == [0.03] * 10


def test_a_resumed_run_has_the_momenta_of_an_uninterrupted_one() -> None:
    whole, parts = model(), model()
    data = batches(10)
    run(whole, NormWarmUp(whole), data)
    run(parts, NormWarmUp(parts), data[:6])
    again = model()
    warm_up = NormWarmUp(again)
    again.load_state_dict(parts.state_dict())  # as in a run: after the session has been made
    run(again, warm_up, data[6:])
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_norms_of_trained_weights_keep_their_pace_counted_or_not() -> None:
    net = model()
    net[0].num_batches_tracked.fill_(10_000)
    net[1].running_var.fill_(0.2)  # of a file that does not count
    assert set(run(net, NormWarmUp(net), batches(3))) == {0.03}
    assert net[1].momentum == 0.03


def test_a_batch_that_was_taken_back_does_not_count() -> None:
    net = model()
    warm_up = NormWarmUp(net)
    run(net, warm_up, batches(3))
    net[0].num_batches_tracked.sub_(1)
    warm_up.step()
    assert net[0].momentum == 4 / 6
