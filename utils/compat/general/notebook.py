"""The first cell of v6.1's notebooks: ``display = utils.notebook_init()``."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any

import torch

from utils.compat.general.checks import check_requirements
from utils.compat.general.logger import LOGGER
from utils.config.paths import ROOT
from utils.core.device import select_device
from utils.core.memory import free_memory


def notebook_init(verbose: bool = True) -> Any:
    """Say what this machine has, warn about packages that are missing.

    Returns:
        ``IPython.display``, to show images with; None where there is no IPython.
    """
    check_requirements()
    if verbose:
        select_device()
        free = free_memory(torch.device("cpu"))
        disk = shutil.disk_usage(ROOT)
        LOGGER.info(
            "%s CPUs, %s GB of memory free, %.1f of %.1f GB of the disk",
            os.cpu_count(), "?" if free is None else f"{free / 1e9:.1f}", disk.free / 1e9, disk.total / 1e9,
        )  # fmt: skip
    try:
        return importlib.import_module("IPython.display")
    except ImportError:
        return None
