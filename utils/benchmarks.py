"""``utils.benchmarks`` of YOLOv5: see ``utils/core/v61.py`` for where each name is made."""

from typing import Any

from utils.core.v61 import find, served

__all__ = [*served("utils.benchmarks")]


def __getattr__(name: str) -> Any:
    return find("utils.benchmarks", name)


if __name__ == "__main__":
    import runpy

    runpy.run_module("tools.benchmark", run_name="__main__")
