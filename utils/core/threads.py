"""Threads of PyTorch beside libraries that compute in threads of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def limit_torch_threads(model: object) -> Iterator[None]:
    """Run a block with one thread of PyTorch if the model computes in threads of another library.

    After an operation on several threads, those of PyTorch (OpenMP) wait actively for some milliseconds, and take the
    processor from the library that runs the model meanwhile: it then needs up to twice the time. On one thread nothing
    waits, and the few operations around the model cost less than that.

    Args:
        model: whose ``own_threads`` is True if another library computes it. Without that attribute nothing changes.
    """
    before = torch.get_num_threads()
    if not getattr(model, "own_threads", False) or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
