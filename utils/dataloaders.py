"""The name of ``utils.datasets`` since v6.2."""

from __future__ import annotations

import importlib
from typing import Any

from utils.compat import served

__all__ = [*served("utils.dataloaders")]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("utils.datasets"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
