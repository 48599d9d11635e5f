"""Statistics of new norms, and norms over several ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.core.dist import ALONE, Ranks
from utils.training.batch_norm import JointBatchNorm2d, NormWarmUp, synchronize_norms

Net = nn.Sequential


def model() -> Net:
    return Net(nn.BatchNorm2d(2, momentum=0.03), nn.BatchNorm2d(2, momentum=0.03)).train()


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 2, 3, 3, generator=generator) * 0.1 + 5 for _ in range(count)]


def run(net: Net, warm_up: NormWarmUp, data: list[torch.Tensor]) -> Net:
    for x in data:
        with warm_up.adapting():
            net(x)
    return net


def with_momenta(momenta: list[float], data: list[torch.Tensor]) -> Net:
    """What torch itself makes of these momenta."""
    net = model()
    for x, momentum in zip(data, momenta, strict=True):
        net[0].momentum = net[1].momentum = momentum
        net(x)
    return net


def assert_same(a: Net, b: Net) -> None:
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=1e-4, atol=1e-5)


def test_the_start_values_are_gone_after_a_few_batches() -> None:
    net, plain = model(), model()
    run(net, NormWarmUp(net), batches(20))
    run(plain, NormWarmUp(plain, enabled=False), batches(20))
    assert net[0].running_mean.tolist() == pytest.approx([5, 5], abs=0.1)
    assert net[0].running_var.tolist() == pytest.approx([0.01, 0.01], rel=0.3)
    assert plain[0].running_mean.max() < 3 and plain[0].running_var.min() > 0.5  # what it is for


def test_it_is_as_if_the_momentum_fell_to_its_own_and_stayed() -> None:
    net, data = model(), batches(140)
    momenta = [max(4 / (4 + n), 0.03) for n in range(140)]
    assert momenta[0] == 1 and momenta[129] > 0.03 and momenta[130:] == [0.03] * 10
    assert_same(run(net, NormWarmUp(net), data), with_momenta(momenta, data))
    assert net[0].momentum == 0.03


def test_a_resumed_run_has_the_statistics_of_an_uninterrupted_one_to_the_last_digit() -> None:
    whole, parts, again, data = model(), model(), model(), batches(10)
    run(whole, NormWarmUp(whole), data)
    run(parts, NormWarmUp(parts), data[:6])
    warm_up = NormWarmUp(again)
    again.load_state_dict(parts.state_dict())  # as in a run: after the session has been made
    run(again, warm_up, data[6:])
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_norms_of_trained_weights_keep_their_pace_counted_or_not() -> None:
    nets = model(), model()
    for net in nets:
        net[0].num_batches_tracked.fill_(10_000)
        net[1].running_var.fill_(0.2)  # of a file that does not count
    run(nets[0], NormWarmUp(nets[0]), batches(3))
    run(nets[1], NormWarmUp(nets[1], enabled=False), batches(3))
    assert all(torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values()))


def test_frozen_norms_stand_still() -> None:
    net = model()
    net[0].eval()
    run(net, NormWarmUp(net), batches(3))
    assert net[0].running_mean.tolist() == [0, 0] and net[1].running_mean.abs().max() > 0


def test_statistics_that_the_forward_pass_begins_with_are_the_ones_that_count() -> None:
    """As among several processes, which get those of rank 0 first."""

    class Wrapper(nn.Module):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.net[0].running_mean.fill_(7.0)
            return self.net(x)

    net, plain, (x,) = model(), model(), batches(1)
    net[0].num_batches_tracked.fill_(4)
    plain[0].num_batches_tracked.fill_(4)
    warm_up = NormWarmUp(net, shared=True)
    with warm_up.adapting():
        Wrapper(net)(x)
    plain[0].running_mean.fill_(7.0)
    plain[0].momentum = 0.5
    plain[0](x)
    torch.testing.assert_close(net[0].running_mean, plain[0].running_mean)


def test_joint_norms_keep_parameters_buffers_and_settings() -> None:
    net = Net(nn.Sequential(nn.BatchNorm2d(2, eps=1e-3, momentum=0.03)), nn.BatchNorm1d(2)).eval()
    norm, keys = net[0][0], list(net.state_dict())
    norm.running_mean.fill_(5.0)
    synchronize_norms(net, torch.device("cpu"), Ranks(0, 2))
    joint = net[0][0]
    assert type(joint) is JointBatchNorm2d and type(net[1]) is nn.BatchNorm1d
    assert (joint.eps, joint.momentum, joint.training) == (1e-3, 0.03, False)
    assert joint.weight is norm.weight and joint.running_mean is norm.running_mean
    assert list(net.state_dict()) == keys
    x = torch.rand(2, 2, 3, 3)
    assert torch.equal(joint(x), norm(x))


def test_a_single_process_keeps_its_norms_and_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    net = model()
    synchronize_norms(net, torch.device("cpu"), ALONE)
    assert type(net[0]) is nn.BatchNorm2d and "--sync-bn has no effect" in caplog.text
