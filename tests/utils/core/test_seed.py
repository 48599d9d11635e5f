"""Seeding of all generators."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from utils.core.seed import seed_everything, torch_settings_restored


@pytest.fixture(autouse=True)
def generators_are_put_back() -> Iterator[None]:
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(pytorch)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def test_the_same_seed_gives_the_same_draws_everywhere() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first


def test_another_seed_gives_other_draws_everywhere() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(4)
    assert all(a != b for a, b in zip(first, draws()))


def test_a_seed_of_more_than_32_bits_is_accepted() -> None:
    seed_everything(2**40 + 1)
    assert torch.initial_seed() == 2**40 + 1


def test_deterministic_asks_torch_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with torch_settings_restored():
        seed_everything(0, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory  # it costs time and changes no result
    assert torch.backends.cudnn.benchmark and not torch.are_deterministic_algorithms_enabled()
