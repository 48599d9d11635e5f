"""Routing: figures worked out by hand, the verdicts, and what the recorder keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.common import Dynamic_conv2d
from models.routing import RoutingRecorder, class_presence, entropy_metrics, layer_names, routing_stats
from models.yolo import Model

LN2 = math.log(2)


def tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows)


# Figures --------------------------------------------------------------------------------------------------------------


def test_one_kernel_an_image_has_entropy_zero_and_a_mean_of_highest_entropy() -> None:
    stats = routing_stats("a", tensor([[1, 0], [0, 1]]))
    assert (stats.kernels, stats.samples, stats.normalized) == (2, 2, False)
    assert stats.mean.tolist() == stats.dominant.tolist() == [0.5, 0.5]
    assert stats.entropy == 0
    assert stats.entropy_of_mean == pytest.approx(LN2)
    assert stats.spread == 0.5  # each kernel's weights are 1 and 0


def test_an_even_mixture_has_entropy_ln_k_and_the_kernels_share_the_lead() -> None:
    stats = routing_stats("a", torch.full((3, 4), 0.25))
    assert stats.entropy == stats.entropy_of_mean == pytest.approx(math.log(4))
    assert stats.relative_entropy == pytest.approx(1)
    assert stats.dominant.tolist() == [0.25] * 4
    assert stats.spread == 0


def test_figures_of_unequal_images() -> None:
    stats = routing_stats("a", tensor([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]))
    assert stats.mean == pytest.approx([0.6, 0.4])
    assert stats.dominant.tolist() == [2.5 / 4, 1.5 / 4]  # the even image counts half for each
    quarter, tenth = 2 * LN2 - 0.75 * math.log(3), -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert stats.entropy == pytest.approx((2 * quarter + LN2 + tenth) / 4)
    assert stats.entropy_of_mean == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4))
    assert stats.spread == pytest.approx(math.sqrt((0.15**2 + 0.1**2 + 0.35**2 + 0.3**2) / 4))


def test_weights_that_do_not_sum_to_one_are_divided_by_their_sum() -> None:
    stats = routing_stats("sigmoid", tensor([[0.9, 0.3], [0.2, 0.2], [0, 0]]))
    assert stats.normalized
    assert stats.mean == pytest.approx([(0.75 + 0.5 + 0.5) / 3, (0.25 + 0.5 + 0.5) / 3])


def test_the_mean_of_a_class_is_over_the_images_that_contain_it() -> None:
    presence = torch.tensor([[True, False, False], [True, True, False]])
    per_class = routing_stats("a", tensor([[1, 0], [0, 1]]), presence).per_class
    assert per_class[:2].tolist() == [[0.5, 0.5], [0, 1]]
    assert np.isnan(per_class[2]).all()


def test_the_class_contrast_is_the_deviation_between_the_classes() -> None:
    weights, nothing = tensor([[1, 0], [0, 1]]), torch.zeros(2, 3, dtype=torch.bool)
    presence = nothing.clone()
    presence[0, 0] = presence[1, 1] = True
    assert routing_stats("a", weights, presence).class_contrast == 0.5
    assert routing_stats("a", weights, nothing).class_contrast == 0


def test_images_the_layer_did_not_see_are_left_out() -> None:
    presence = torch.tensor([[True], [True]])
    stats = routing_stats("a", tensor([[math.nan, math.nan], [0.75, 0.25]]), presence)
    assert stats.samples == 1
    assert stats.mean.tolist() == stats.per_class[0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("rows", [[[-0.5, 1.5]], [[math.nan, 1.0]]])
def test_weights_without_meaning_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="layer 7"):
        routing_stats("layer 7", tensor(rows))


def test_a_class_counts_once_per_image() -> None:
    targets = tensor([[0, 1, 0.5, 0.5, 0.1, 0.1], [0, 1, 0.2, 0.2, 0.1, 0.1], [2, 0, 0.5, 0.5, 0.1, 0.1]])
    assert class_presence(targets, 3, 2).tolist() == [[False, True], [False, False], [True, False]]


# Verdicts -------------------------------------------------------------------------------------------------------------


def test_a_layer_that_uses_its_kernels_is_ok() -> None:
    assert routing_stats("a", tensor([[0.7, 0.3], [0.3, 0.7]])).verdict == "ok"


def test_a_kernel_below_a_twentieth_of_its_share_is_nearly_unused() -> None:
    stats = routing_stats("a", tensor([[0.7, 0.28, 0.02], [0.3, 0.69, 0.01]]))
    assert stats.verdict == "kernel 2 is nearly unused, mean weight 0.0150"
    assert routing_stats("a", tensor([[0.7, 0.28, 0.02], [0.3, 0.68, 0.02]])).verdict == "ok"  # 0.05 / 3 = 0.0167


def test_a_kernel_that_leads_a_single_image_is_not_unused() -> None:
    rows = [[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]] * 50 + [[0.0, 0.0, 1.0]]
    stats = routing_stats("a", tensor(rows))
    assert stats.mean[2] < 0.05 / 3
    assert stats.verdict == "ok"


def test_a_layer_of_one_kernel_for_all_images_has_collapsed() -> None:
    stats = routing_stats("a", tensor([[0.01, 0.98, 0.01], [0.0, 1.0, 0.0]]))
    assert stats.verdict == "collapsed to kernel 1, mean weight 0.990: the other 2 are idle"


def test_one_kernel_an_image_is_no_collapse_when_images_differ() -> None:
    assert routing_stats("a", tensor([[1, 0], [0, 1]])).verdict == "ok"


def test_a_layer_that_mixes_all_kernels_evenly_stays_uniform() -> None:
    assert "stays uniform" in routing_stats("a", tensor([[0.5, 0.5], [0.505, 0.495]])).verdict


def test_one_mixture_for_all_images_is_a_static_convolution() -> None:
    assert "alike for every image" in routing_stats("a", tensor([[0.8, 0.2], [0.801, 0.199]])).verdict
    assert routing_stats("a", tensor([[0.8, 0.2]])).verdict == "ok"  # one image shows no difference


def test_a_single_kernel_leaves_nothing_to_choose() -> None:
    stats = routing_stats("a", tensor([[1], [1]]))
    assert stats.relative_entropy == 0
    assert "single kernel" in stats.verdict


# Names ----------------------------------------------------------------------------------------------------------------


def test_layers_are_named_by_their_row_of_the_yaml() -> None:
    assert list(layer_names(Model("yolov5n_dynamic.yaml")).values()) == ["10", "14"]
    assert layer_names(Model("yolov5n.yaml")) == {}


def test_layers_without_a_parent_keep_their_own_name() -> None:
    assert layer_names(Dynamic_conv2d(4, 4, 1)) == {"attention": "attention"}


def test_every_layer_has_an_entropy_column_figures_or_not() -> None:
    model = Two()
    figures = entropy_metrics(model, [routing_stats("first", torch.full((2, 2), 0.5))])
    assert list(figures) == ["routing/first_entropy", "routing/second_entropy"]
    assert figures["routing/first_entropy"] == pytest.approx(LN2)
    assert math.isnan(figures["routing/second_entropy"])


# Recorder -------------------------------------------------------------------------------------------------------------


class Two(nn.Module):
    """Two dynamic layers, of which the second runs as often as told."""

    def __init__(self, calls: int = 1) -> None:
        super().__init__()
        self.first, self.second = Dynamic_conv2d(3, 3, 1, K=2), Dynamic_conv2d(3, 3, 1, K=3)
        self.calls = calls
        rng = torch.Generator().manual_seed(0)
        for layer in (self.first, self.second):  # positive, so that no ReLU is dead and every image differs
            nn.init.uniform_(layer.attention.fc1.weight, 0.1, 1, generator=rng)
            nn.init.uniform_(layer.attention.fc2.weight, -1, 1, generator=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.calls):
            x = self.second(x)
        return x


def random_images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 200


def test_rows_follow_the_images_over_the_batches() -> None:
    model, images = Two(), random_images(5)
    with RoutingRecorder(model) as recorder:
        model(images[:3])
        model(images[3:])
    assert (recorder.layers, recorder.samples) == (("first", "second"), 5)
    expected = model.first.attention(images)
    assert expected.std(0).min() > 1e-3, "the images should differ"
    assert torch.allclose(recorder.weights("first"), expected, atol=1e-6)
    assert recorder.weights("second").shape == (5, 3)
    assert not recorder.weights("first").requires_grad


def test_nothing_is_recorded_outside_the_context_and_no_hook_stays() -> None:
    model = Two()
    with RoutingRecorder(model) as recorder:
        model(random_images(2))
    model(random_images(2))
    assert recorder.samples == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_go_when_the_pass_fails() -> None:
    model = Two()
    with pytest.raises(ZeroDivisionError), RoutingRecorder(model):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_layer_called_twice_in_a_pass_gives_the_mean_of_its_calls() -> None:
    model, images = Two(calls=2), random_images(4)
    with RoutingRecorder(model) as recorder:
        model(images)
    once = model.first(images)
    expected = (model.second.attention(once) + model.second.attention(model.second(once))) / 2
    assert torch.allclose(recorder.weights("second"), expected, atol=1e-6)


def test_a_pass_without_a_layer_leaves_its_rows_empty() -> None:
    model = Two(calls=0)
    with RoutingRecorder(model) as recorder:
        model(random_images(2))
        model.calls = 1
        model(random_images(3))
    assert recorder.weights("second").isnan().any(dim=1).tolist() == [True, True, False, False, False]
    assert [stats.samples for stats in recorder.stats()] == [5, 3]


def test_a_layer_on_windows_of_the_images_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Windows(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.cat(self.first(x).chunk(2, dim=2)))

    model = Windows()
    with RoutingRecorder(model) as recorder:
        model(random_images(2))
        model(random_images(2))
    assert recorder.layers == ("first",)
    assert [record.args for record in caplog.records] == [("second",)]


def test_an_abandoned_pass_leaves_nothing_behind() -> None:
    model, images = Two(), random_images(2)
    with RoutingRecorder(model) as recorder:
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 5, 4, 4))
        model.first.attention(images)  # outside a pass
        model(images)
    assert recorder.samples == 2
    assert torch.allclose(recorder.weights("first"), model.first.attention(images), atol=1e-6)


def test_the_temperature_of_a_layer_is_among_its_figures() -> None:
    model = Two()
    model.second.attention.set_temperature(7)
    with RoutingRecorder(model) as recorder:
        model(random_images(2))
    assert [stats.temperature for stats in recorder.stats()] == [34, 7]


def test_a_static_model_costs_nothing_and_has_no_figures() -> None:
    model = nn.Conv2d(3, 3, 1)
    with RoutingRecorder(model) as recorder:
        assert not model._forward_hooks
        model(random_images(2))
    assert recorder.stats() == ()
