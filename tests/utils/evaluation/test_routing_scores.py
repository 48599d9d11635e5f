"""Scores with the kernel weights of other images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.dynamic import DynamicConv, set_temperature
from models.routing import RoutingRecorder
from utils.core.errors import InputError
from utils.evaluation.routing_scores import _other_images, fixed_routing, read_conditions


def test_a_model_with_its_own_weights_given_is_itself_and_with_others_it_is_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(DynamicConv(4, 8), DynamicConv(8, 8, 3)).eval()
    set_temperature(model, 1)
    batches = [torch.randn(3, 4, 6, 6), torch.randn(2, 4, 6, 6)]
    with torch.no_grad(), RoutingRecorder(model) as recorder:
        expected = [model(images) for images in batches]
    weights = {name: recorder.weights(name) for name in recorder.layers}
    assert len(weights) == 2
    with torch.no_grad(), fixed_routing(model, weights):
        for images, y in zip(batches, expected):
            assert torch.equal(model(images), y)
    with torch.no_grad(), fixed_routing(model, {name: rows.flip(0) for name, rows in weights.items()}):
        assert not torch.allclose(model(batches[0]), expected[0])
    with torch.no_grad():
        assert torch.equal(model(batches[0]), expected[0])  # nothing stays behind


def test_other_images_are_never_the_image_itself_and_of_the_wanted_condition() -> None:
    groups = np.array(["a", "b", "a", "b", "a", "c", "c"])
    chosen = _other_images(groups, np.random.default_rng(0))
    assert set(chosen) == {"same", "other"}
    assert (groups[chosen["same"]] == groups).all() and (chosen["same"] != np.arange(7)).all()
    assert (groups[chosen["other"]] != groups).all()
    assert set(_other_images(np.array(["", "", ""]), np.random.default_rng(0))) == {"any"}
    assert set(_other_images(np.array(["a", "b"]), np.random.default_rng(0))) == set()


def test_conditions_are_found_beside_the_images_or_above_them(tmp_path: Path) -> None:
    (tmp_path / "images/val").mkdir(parents=True)
    assert read_conditions(tmp_path / "images/val") == {}
    (tmp_path / "conditions.csv").write_text("image,condition\n1.png,dark\n", encoding="utf-8")
    assert read_conditions(tmp_path / "images/val") == {"1.png": "dark"}
    (tmp_path / "conditions.csv").write_text("1.png;dark\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected the columns image,condition"):
        read_conditions(tmp_path)
