"""``utils.benchmarks`` of YOLOv5: ``utils/core/v61.py`` lists the module that defines each name."""

from utils.core.v61 import only_served

__all__, __getattr__ = only_served("utils.benchmarks")

if __name__ == "__main__":
    import runpy

    runpy.run_module("tools.benchmark", run_name="__main__")
