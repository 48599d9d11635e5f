"""``utils.general`` of YOLOv5: see ``utils/core/v61.py`` for where each name is made."""

from typing import Any

from utils.core.v61 import find, served

__all__ = [*served("utils.general")]


def __getattr__(name: str) -> Any:
    return find("utils.general", name)
