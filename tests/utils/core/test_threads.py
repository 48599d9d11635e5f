"""Threads of PyTorch beside libraries with their own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from utils.core.threads import limit_torch_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_has_one_thread_beside_a_library_with_its_own_threads() -> None:
    model = SimpleNamespace(own_threads=True)
    with limit_torch_threads(model):
        assert torch.get_num_threads() == 1
        with limit_torch_threads(model):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_the_number_of_threads_is_restored_after_an_error() -> None:
    with pytest.raises(ValueError, match="wrong"), limit_torch_threads(SimpleNamespace(own_threads=True)):
        raise ValueError("wrong")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("model", [SimpleNamespace(own_threads=False), torch.nn.Identity()])
def test_a_model_that_torch_computes_has_all_threads(model: object) -> None:
    with limit_torch_threads(model):
        assert torch.get_num_threads() == 2
