"""Data sets: reading labels, training items and batches; and the sources of images to detect objects in."""

from typing import Any

from utils.core.v61 import import_served, served_names

__all__ = served_names("utils.datasets")  # names of v6.1


def __getattr__(name: str) -> Any:
    return import_served("utils.datasets", name)
