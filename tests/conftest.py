"""Fixtures shared by all tests. Figures of the reference live beside the checkout and are optional."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


class Golden:
    """Lazy access to the figures of the reference: ``golden.array("iou/matrix")``, ``golden.json("tensors")``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arrays: Any = None

    def json(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def array(self, name: str) -> np.ndarray:
        if self._arrays is None:
            self._arrays = np.load(self.folder / "tensors.npz")
        return self._arrays[name]


@pytest.fixture(scope="session")
def golden() -> Golden:
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("reference figures are not beside this checkout")
    return Golden(folder)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("reference data sets are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("reference checkpoints are not beside this checkout")
    return folder
