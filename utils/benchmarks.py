"""``utils.benchmarks`` of YOLOv5: ``utils/core/v61.py`` lists the module that defines each name."""

import sys
from pathlib import Path

if __name__ == "__main__":  # python utils/benchmarks.py: the packages lie beside its folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.core.v61 import only_served

__all__, __getattr__ = only_served("utils.benchmarks")

if __name__ == "__main__":
    import runpy

    runpy.run_module("tools.benchmark", run_name="__main__")
