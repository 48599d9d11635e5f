"""The layers of examples/layers, loaded as ``--modules`` loads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from models import user_modules
from models.registry import LAYERS
from models.user_modules import load_modules

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples/layers"


@pytest.fixture
def load() -> Iterator[Callable[[str], ModuleType]]:
    """``load("eca")``: the module of examples/layers/eca.py, its layers registered until the test ends."""
    layers, loaded, modules = dict(LAYERS), dict(user_modules._LOADED), set(sys.modules)

    def run(name: str) -> ModuleType:
        (record,) = load_modules([FOLDER / f"{name}.py"])
        return sys.modules[LAYERS[record.layers[0]].cls.__module__]

    yield run
    for now, then in ((LAYERS, layers), (user_modules._LOADED, loaded)):
        now.clear()
        now.update(then)  # type: ignore[arg-type]
    for name in set(sys.modules) - modules:
        if name.startswith("user_module_"):
            del sys.modules[name]
