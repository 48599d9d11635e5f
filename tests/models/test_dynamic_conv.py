"""Dynamic convolution against a loop over the images of the batch, and its known traps."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common import Dynamic_conv2d, attention2d
from models.dynamic import get_temperature, set_temperature, temperatures
from models.dynamic_convolution import DynamicForm
from models.yolo import Model
from utils.core.errors import InputError


def by_image(layer: Dynamic_conv2d, x: Tensor) -> Tensor:
    """The definition, one image after the other, in plain steps."""
    outputs = []
    for image in x:
        pooled = image.mean(dim=(1, 2))
        hidden = torch.relu(layer.attention.fc1.weight[:, :, 0, 0] @ pooled)
        logits = layer.attention.fc2.weight[:, :, 0, 0] @ hidden / layer.attention.temperature
        share = torch.exp(logits) / torch.exp(logits).sum()
        kernel = sum(s * w for s, w in zip(share, layer.weight))
        bias = None if layer.bias is None else sum(s * b for s, b in zip(share, layer.bias))
        outputs.append(
            F.conv2d(image[None], kernel, bias, layer.stride, layer.padding, layer.dilation, layer.groups)[0]
        )
    return torch.stack(outputs)


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("dilation", [1, 2])
def test_equals_a_loop_over_the_images(batch: int, kernel: int, stride: int, groups: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = Dynamic_conv2d(8, 16, kernel, 0.5, stride, kernel // 2, dilation, groups, temperature=2)
    nn.init.normal_(layer.bias)
    x = torch.randn(batch, 8, 13, 11)
    torch.testing.assert_close(layer(x), by_image(layer, x), atol=2e-5, rtol=1e-5)


def test_pointwise_layers_use_matrix_products_and_agree_with_grouped_convolution() -> None:
    layer = Dynamic_conv2d(8, 16, 1)
    assert layer.form is DynamicForm.MATMUL
    assert Dynamic_conv2d(8, 16, 3, padding=1).form is DynamicForm.GROUPED
    assert Dynamic_conv2d(8, 16, 1, groups=2).form is DynamicForm.GROUPED
    x = torch.randn(3, 8, 5, 6)
    expected = layer(x)
    layer.use_form(DynamicForm.GROUPED)
    assert layer.form is DynamicForm.GROUPED
    torch.testing.assert_close(layer(x), expected, atol=2e-5, rtol=1e-5)


def test_empty_batch_gives_an_empty_map() -> None:
    assert Dynamic_conv2d(8, 16, 3, stride=2, padding=1)(torch.zeros(0, 8, 12, 12)).shape == (0, 16, 6, 6)


@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (3, 2)])
def test_gradients_are_right(kernel: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = Dynamic_conv2d(4, 4, kernel, 0.5, padding=kernel // 2, groups=groups, K=3, temperature=1.5).double()
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip([name for name, _ in layer.named_parameters()], values))
        return torch.func.functional_call(layer, named, (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_bfloat16_autocast_stays_close_and_has_the_dtype_of_a_plain_convolution() -> None:
    torch.manual_seed(0)
    for kernel in (1, 3):
        layer = Dynamic_conv2d(8, 16, kernel, 0.5, padding=kernel // 2, temperature=2)
        x = torch.randn(4, 8, 9, 9)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, plain = layer(x), nn.Conv2d(8, 16, kernel)(x)
        assert y.dtype == plain.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), layer(x), atol=0.1, rtol=0.05)


def test_half_precision_model_runs_and_keeps_its_exact_temperature() -> None:
    layer = Dynamic_conv2d(8, 16, 3, padding=1, temperature=4.7)
    exact = float(layer.attention.temperature)
    layer.half()
    assert layer(torch.randn(2, 8, 6, 6).half()).dtype == torch.float16
    assert float(layer.attention.temperature) == exact


def test_every_parameter_is_initialised_and_reproducible_by_seed() -> None:
    for _ in range(20):
        torch.manual_seed(7)
        first = Dynamic_conv2d(16, 32, 3)
        torch.manual_seed(7)
        second = Dynamic_conv2d(16, 32, 3)
        for a, b in zip(first.parameters(), second.parameters()):
            assert torch.isfinite(a).all() and torch.equal(a, b)
        assert (first.bias == 0).all()


def test_kernels_start_different_from_each_other() -> None:
    weight = Dynamic_conv2d(8, 8, 3).weight
    assert not torch.allclose(weight[0], weight[1])


@pytest.mark.parametrize(
    ("channels", "ratio", "hidden"), [(1, 0.25, 1), (3, 0.25, 4), (8, 0.25, 2), (8, 1, 8), (2, 0.1, 1)]
)
def test_hidden_width_of_the_attention(channels: int, ratio: float, hidden: int) -> None:
    assert attention2d(channels, ratio, K=4, temperature=34).fc1.out_channels == hidden


def test_attention_rows_sum_to_one_and_flatten_with_temperature() -> None:
    torch.manual_seed(0)
    attention, x = attention2d(8, 1.0, 4, 1.0), torch.randn(5, 8, 4, 4) * 5 + 3
    sharp = attention(x)
    torch.testing.assert_close(sharp.sum(1), torch.ones(5))
    attention.set_temperature(34)
    flat = attention(x)
    assert flat.std() < sharp.std() / 5


def test_huge_logits_do_not_overflow() -> None:
    attention = attention2d(4, 1.0, 4, 1.0)
    nn.init.constant_(attention.fc1.weight, 1e18)
    assert torch.isfinite(attention(torch.ones(1, 4, 2, 2) * 1e18)).all()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_fifty_steps_at_a_high_rate_and_the_lowest_temperature_stay_finite(dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Dynamic_conv2d(4, 8, 3, 0.5, padding=1, temperature=1), nn.ReLU(), Dynamic_conv2d(8, 2, 1))
    x, goal = torch.randn(4, 4, 6, 6), torch.randn(4, 2, 6, 6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(50):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            y = net(x)
        loss = (y.float() - goal).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def test_deepcopy_and_pickle_work_after_a_backward_pass_and_every_parameter_has_a_gradient() -> None:
    layer = Dynamic_conv2d(8, 16, 1)
    layer(torch.randn(2, 8, 4, 4)).square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    x = torch.randn(1, 8, 4, 4)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x))


def test_one_step_lowers_the_temperature_by_three_down_to_one() -> None:
    layer = Dynamic_conv2d(8, 8, 1)
    seen = []
    for _ in range(13):
        seen.append(float(layer.attention.temperature))
        layer.attention.updata_temperature()
    assert seen == [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1]


def test_temperature_is_set_and_read_for_a_whole_model_and_is_in_its_state() -> None:
    model = Model("yolov5n_dynamic.yaml", nc=2)
    assert get_temperature(model) == 34
    assert set_temperature(model, 7) == 2
    assert get_temperature(model) == 7
    assert model.state_dict()["model.10.attention.temperature"] == 7
    assert get_temperature(Model("yolov5n.yaml", nc=2)) is None


def test_temperature_below_one_is_refused_by_value() -> None:
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        attention2d(4, 1.0, 4, temperature=0.5)
    set_temperature(layer := Dynamic_conv2d(4, 4, 1), 0.2)
    assert float(layer.attention.temperature) == 1


@pytest.mark.parametrize("temperature", [0.5, float("nan"), float("inf")])
def test_a_temperature_no_softmax_can_use_is_refused_by_value(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature must be a number of at least 1, got {temperature}"):
        Dynamic_conv2d(4, 4, 1, temperature=temperature)


@pytest.mark.parametrize(
    ("option", "problem"),
    [({"K": 0}, "K must be .* got 0"), ({"K": 2.5}, "K must be .* got 2.5"), ({"ratio": 0}, "ratio .* got 0")],
)
def test_no_kernels_and_no_width_are_refused_by_value(option: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Dynamic_conv2d(4, 4, 1, **option)  # type: ignore[arg-type]


def test_layers_of_different_temperatures_are_listed_and_have_no_common_one() -> None:
    layers = nn.ModuleList([Dynamic_conv2d(4, 4, 1), Dynamic_conv2d(4, 4, 1, temperature=10)])
    assert temperatures(layers) == [10, 34]
    with pytest.raises(InputError, match="different temperatures: 10, 34"):
        get_temperature(layers)
    set_temperature(layers, 5)
    assert temperatures(layers) == [5] and get_temperature(layers) == 5


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="groups=3 must divide in_planes=8"):
        Dynamic_conv2d(8, 9, 1, groups=3)


def test_arguments_by_place_mean_what_they_mean_in_the_published_layer() -> None:
    by_place = Dynamic_conv2d(8, 6, 3, 0.5, 2, 1, 1, 2, False, 3, 30, False)
    names = {"ratio": 0.5, "stride": 2, "padding": 1, "groups": 2, "bias": False, "K": 3, "temperature": 30}
    by_name = Dynamic_conv2d(8, 6, 3, **names, init_weight=False)
    assert repr(by_place) == repr(by_name)
    assert (by_place.K, by_place.stride, by_place.groups, by_place.bias) == (3, 2, 2, None)
    assert by_place.attention.temperature == 30 and by_place.static_weight is None
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in by_place.modules())
