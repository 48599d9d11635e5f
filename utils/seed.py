"""One call that seeds every generator a run touches."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed torch on every device and, for code of others, the global generators of Python and numpy.

    Our own code draws from explicit ``numpy.random.Generator`` objects and does not depend on the last two.

    Args:
        seed: whole number of at least 0; torch takes 64 bits of it, numpy 32.
        deterministic: refuse GPU kernels whose result depends on the order of additions (slower).
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)  # covers all GPUs as well
    if deterministic:
        # cuBLAS reads this when its first handle is made, so it must be set before any GPU work.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
