"""Repeatable runs: seeds of all random generators, and a fixed order of additions."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

_memory: Any = torch.utils.deterministic  # typed as a plain module, while its attributes are properties


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed torch on every device and, for other libraries, the global generators of Python and numpy.

    Code of this repository uses explicit ``numpy.random.Generator`` objects instead of the last two.

    Args:
        seed: integer of at least 0; torch takes 64 bits of it, numpy 32.
        deterministic: avoid operations whose result depends on the order of additions. On a GPU there are many, and
            the replacements are slower. On a CPU it is the backward pass of indexing, whose threads add in any order;
            the cost is 1 to 2 % of a step (``tests/benchmarks/train_step.py``).
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)  # covers all GPUs as well
    if deterministic:
        # cuBLAS reads this when its first handle is made: before any GPU work.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        _memory.fill_uninitialized_memory = False  # only useful to find code that reads such memory


@contextlib.contextmanager
def torch_settings_restored() -> Iterator[None]:
    """Restore at the end what :func:`seed_everything` sets in torch for the whole process."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    fill = _memory.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        _memory.fill_uninitialized_memory = fill
