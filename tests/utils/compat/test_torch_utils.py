"""Names of utils.torch_utils with the arguments of v6.1."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import utils.torch_utils as torch_utils
from utils.core.errors import InputError


def test_select_device_takes_text_devices_and_the_batch_size() -> None:
    cpu = torch.device("cpu")
    assert torch_utils.select_device("cpu", batch_size=16) == cpu
    assert torch_utils.select_device(cpu, 16, newline=False) == cpu
    with pytest.raises(InputError, match="not a multiple of the 2 GPUs"):
        torch_utils.select_device("0,1", batch_size=3)


def test_time_sync_does_not_run_backwards() -> None:
    first = torch_utils.time_sync()
    assert torch_utils.time_sync() >= first


def test_wrapped_models_are_unwrapped() -> None:
    model = nn.Linear(1, 1)
    assert not torch_utils.is_parallel(model)
    assert torch_utils.de_parallel(model) is model
    wrapped = nn.DataParallel(model)
    assert torch_utils.is_parallel(wrapped)
    assert torch_utils.de_parallel(wrapped) is model


def test_a_single_process_waits_for_nobody() -> None:
    with torch_utils.torch_distributed_zero_first(-1):
        done = True
    assert done


def test_batch_norm_gets_the_official_settings() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    torch_utils.initialize_weights(model)
    assert (model[1].eps, model[1].momentum) == (1e-3, 0.03)


def test_a_folded_convolution_gives_the_same() -> None:
    conv, norm = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(torch_utils.fuse_conv_and_bn(conv, norm)(x), norm(conv(x)))


@pytest.mark.parametrize(
    ("ratio", "same_shape", "shape", "content"),
    [(0.5, False, (32, 32), (32, 16)), (0.5, True, (64, 32), (32, 16)), (0.75, False, (64, 32), (48, 24))],
)
def test_scaled_images_are_filled_up_with_grey(
    ratio: float, same_shape: bool, shape: tuple[int, int], content: tuple[int, int]
) -> None:
    scaled = torch_utils.scale_img(torch.ones(1, 3, 64, 32), ratio, same_shape, gs=32)[0, 0]
    assert tuple(scaled.shape) == shape
    white = scaled > 0.99
    assert white[: content[0], : content[1]].all()
    assert white.sum() == content[0] * content[1]
    assert torch.unique(scaled[~white]).tolist() == [pytest.approx(0.447)]


def test_a_scale_of_one_changes_nothing() -> None:
    image = torch.rand(1, 3, 33, 31)
    assert torch.equal(torch_utils.scale_img(image, 1.0), image)


def test_copy_attr_takes_what_is_asked_for() -> None:
    source = SimpleNamespace(a=1, b=2, _c=3)
    everything, some, rest = SimpleNamespace(), SimpleNamespace(), SimpleNamespace()
    torch_utils.copy_attr(everything, source)
    torch_utils.copy_attr(some, source, include=("a",))
    torch_utils.copy_attr(rest, source, exclude=("a",))
    assert (vars(everything), vars(some), vars(rest)) == ({"a": 1, "b": 2}, {"a": 1}, {"b": 2})


def test_the_average_has_its_old_names() -> None:
    model = nn.Linear(1, 1)
    average = torch_utils.ModelEMA(model, decay=0.9, updates=0)
    start = average.ema.weight.clone()
    with torch.no_grad():
        model.weight += 1
    average.update(model)
    model.names = ["a"]
    average.update_attr(model, include=["names"])
    expected = start + 1 - average.decay(1)
    torch.testing.assert_close(average.ema.weight, expected)
    assert (average.updates, average.ema.names) == (1, ["a"])


def test_early_stopping_takes_keywords() -> None:
    stopper = torch_utils.EarlyStopping(patience=1)
    assert [stopper(epoch=0, fitness=0.5), stopper(epoch=1, fitness=0.4)] == [False, True]


def test_model_info_counts(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1))
    with caplog.at_level(logging.INFO):
        torch_utils.model_info(model, verbose=True, img_size=64)
    assert "0.weight" in caplog.messages[0]
    assert "2 layers, 4 parameters" in caplog.messages[-1]


def test_convolutions_are_pruned() -> None:
    model = nn.Module()
    model.model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.SiLU(), nn.Conv2d(8, 8, 1, bias=False))
    assert torch_utils.sparsity(model) == 0
    torch_utils.prune(model, 0.25)
    assert torch_utils.sparsity(model) == pytest.approx(0.25, abs=0.01)
    assert [name for name, _ in model.named_parameters()] == ["model.0.weight", "model.2.weight"]


def test_a_profile_has_a_row_for_every_input_and_operation() -> None:
    def broken(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")

    x = torch.zeros(2, 3, 8, 8)
    conv, activation, failed = torch_utils.profile(x, [nn.Conv2d(3, 4, 1, bias=False), torch.tanh, broken], 2, "cpu")
    assert conv is not None and conv[:2] == [12, pytest.approx(2e-9 * 2 * 64 * 12)]
    assert conv[3] > 0 and conv[4] > 0 and conv[5:] == [(2, 3, 8, 8), (2, 4, 8, 8)]
    assert activation is not None and activation[:2] == [0, 0.0]
    assert failed is None
